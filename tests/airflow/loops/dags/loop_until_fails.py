from airflow.sdk import DAG, LoopDecision, task, task_group

with DAG("loop_until_fails", schedule=None, default_args={"retries": 1, "retry_delay": 0}):
    @task_group
    def body():
        @task
        def step(*, loop):
            return loop.index
        step()

    def fails(*, loop, ti):
        if ti.try_number == 1:
            raise ValueError("as expected")
        return loop.index == 1

    body.loop(max_iterations=3, until=fails)
