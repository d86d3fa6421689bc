from airflow.sdk import DAG, LoopDecision, task, task_group

with DAG("loop_retry", schedule=None):
    @task_group
    def body():
        @task(retries=1, retry_delay=0)
        def flaky(*, loop, ti):
            if ti.try_number == 1 and loop.index != 1:
                raise ValueError("the first try fails")
            return [loop.index, ti.try_number]
        flaky()

    body.loop(max_iterations=3)
