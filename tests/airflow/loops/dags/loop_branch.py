from airflow.sdk import DAG, LoopDecision, task, task_group

with DAG("loop_branch", schedule=None):
    @task_group
    def body():
        @task.branch
        def choose(*, loop):
            return "body.even" if loop.index % 2 == 0 else "body.odd"

        @task
        def even():
            return "even"

        @task
        def odd():
            return "odd"

        @task(trigger_rule="none_failed_min_one_success")
        def join(*, loop):
            return loop.index

        choose() >> [even(), odd()] >> join()

    body.loop(max_iterations=3)
