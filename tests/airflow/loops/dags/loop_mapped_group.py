from airflow.sdk import DAG, LoopDecision, task, task_group

with DAG("loop_mapped_group", schedule=None):
    @task_group
    def body():
        @task
        def letters(*, loop):
            return ["a", "b", "c"][: loop.index + 1]

        @task_group
        def each(letter):
            @task
            def upper(letter):
                return letter.upper()

            @task
            def twice(letter):
                return letter * 2

            return twice(upper(letter))

        @task
        def collect(words, *, loop):
            return [loop.index, *words]

        collect(each.expand(letter=letters()))

    body.loop(max_iterations=3)
