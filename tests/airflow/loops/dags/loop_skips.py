from airflow.sdk import DAG, LoopDecision, task, task_group

from airflow.sdk.exceptions import AirflowSkipException

with DAG("loop_skips", schedule=None):
    @task_group
    def body():
        @task
        def step(*, loop):
            if loop.index == 1:
                raise AirflowSkipException("nothing is left")
            return loop.index
        step()

    @task
    def after():
        return "after"

    @task(trigger_rule="none_failed")
    def anyway():
        return "anyway"

    loop = body.loop(max_iterations=5)
    loop >> after()
    loop >> anyway()
