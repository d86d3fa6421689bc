from airflow.sdk import DAG, LoopDecision, task, task_group

with DAG("loop_cap", schedule=None, default_args={"retries": 2, "retry_delay": 0}):
    @task_group
    def body():
        @task
        def step(*, loop):
            return loop.index
        step()

    def never(*, loop):
        return False

    @task
    def after():
        return "after"

    @task(trigger_rule="all_done")
    def always():
        return "always"

    loop = body.loop(max_iterations=2, until=never)
    loop >> after()
    loop >> always()
