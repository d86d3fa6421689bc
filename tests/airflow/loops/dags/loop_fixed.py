from airflow.sdk import DAG, LoopDecision, task, task_group

with DAG("loop_fixed", schedule=None):
    @task_group
    def body():
        @task
        def step(*, loop):
            return [loop.index, loop.max_iterations, loop.previous]
        step()

    @task
    def before():
        return "before"

    @task
    def after(ti=None):
        return list(ti.xcom_pull(task_ids="body.step"))

    before() >> body.loop(max_iterations=3) >> after()
