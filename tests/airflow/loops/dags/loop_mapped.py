from airflow.sdk import DAG, LoopDecision, task, task_group

with DAG("loop_mapped", schedule=None):
    @task_group
    def body():
        @task
        def items(*, loop):
            return list(range(loop.index + 1))

        @task
        def double(item, *, loop):
            return 2 * item + 10 * loop.index

        @task
        def total(values):
            return sum(values)

        total(double.expand(item=items()))

    @task
    def after(ti=None):
        return [list(ti.xcom_pull(task_ids="body.double")), list(ti.xcom_pull(task_ids="body.total"))]

    body.loop(max_iterations=3) >> after()
