from airflow.sdk import DAG, LoopDecision, task, task_group

with DAG("loop_two", schedule=None):
    @task_group
    def first():
        @task
        def one(*, loop):
            return loop.index
        one()

    @task_group
    def second():
        @task
        def two(*, loop, ti):
            return [loop.index, list(ti.xcom_pull(task_ids="first.one"))]
        two()

    first.loop(max_iterations=2) >> second.loop(max_iterations=3)
