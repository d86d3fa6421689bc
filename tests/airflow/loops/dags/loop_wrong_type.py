from airflow.sdk import DAG, LoopDecision, task, task_group

with DAG("loop_wrong_type", schedule=None, default_args={"retries": 2, "retry_delay": 0}):
    @task_group
    def body():
        @task
        def step():
            return 1
        step()

    def wrong(*, loop):
        return "yes"

    body.loop(max_iterations=3, until=wrong)
