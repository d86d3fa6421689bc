"""Mapped task groups, with one copy per element."""

from airflow.exceptions import AirflowSkipException
from airflow.sdk import DAG, task, task_group

with DAG("mapped_groups", schedule=None):

    @task
    def numbers():
        return [1, 2, 3]

    @task_group
    def steps(n, factor=10):
        @task
        def first(x):
            if x == 2:
                raise AirflowSkipException("not two")
            return x + 1

        @task
        def second(x, f):
            return x * f

        @task(trigger_rule="all_done")
        def last(x):
            return ["last", x]

        one = first(n)
        two = second(one, factor)
        last(two)
        return two

    @task(trigger_rule="none_failed")
    def gather(xs):
        return list(xs)

    gather(steps.partial(factor=100).expand(n=numbers()))

    @task_group
    def literal(a, b):
        @task
        def both(x, y):
            return f"{x}{y}"

        return both(a, b)

    literal.expand(a=["p", "q"], b=[1, 2])

    @task_group
    def from_dicts(a, b):
        @task
        def both(x, y):
            return [x, y]

        return both(a, b)

    from_dicts.expand_kwargs([{"a": 1, "b": 2}, {"a": 3, "b": 4}])
