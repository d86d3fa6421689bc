from airflow.sdk import DAG, LoopDecision, task, task_group

with DAG("loop_until", schedule=None):
    @task_group
    def body():
        @task
        def step(*, loop):
            return 2 ** loop.index
        step()

    def enough(*, loop):
        """Stops at eight."""
        return LoopDecision(stop=loop.result >= 8, reason=f"{loop.result} of 8")

    @task
    def after():
        return "after"

    body.loop(max_iterations=10, until=enough) >> after()
