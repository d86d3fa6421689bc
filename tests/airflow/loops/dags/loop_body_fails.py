from airflow.sdk import DAG, LoopDecision, task, task_group

with DAG("loop_body_fails", schedule=None):
    @task_group
    def body():
        @task
        def step(*, loop):
            if loop.index == 1:
                raise ValueError("in the second iteration")
            return loop.index

        @task
        def last(value):
            return value

        last(step())

    @task
    def after():
        return "after"

    @task(trigger_rule="one_failed")
    def alarm():
        return "alarm"

    loop = body.loop(max_iterations=3)
    loop >> after()
    loop >> alarm()
