from airflow.sdk import DAG, LoopDecision, task, task_group

with DAG("loop_nested_group", schedule=None):
    @task_group
    def body():
        @task
        def start(*, loop):
            return 1 if loop.previous is None else loop.previous + 1

        @task_group
        def inner():
            @task
            def left(number):
                return number * 10

            @task
            def right(number):
                return number * 100

            number = start()
            return [left(number), right(number)]

        @task
        def join(left, right, *, loop):
            return (left + right) // 110 + loop.index

        join(*inner())

    def big(*, loop):
        return loop.result > 5

    @task
    def after():
        return "after"

    body.loop(max_iterations=9, until=big) >> after()
