"""Branches to mapped tasks, and inside a mapped group."""

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, task, task_group

with DAG("mapped_branches", schedule=None):

    @task.branch
    def choose():
        return "chosen"

    @task
    def chosen(x):
        return x

    @task
    def not_chosen(x):
        return x

    choose() >> [chosen.expand(x=[1, 2]), not_chosen.expand(x=[1, 2])]

    @task_group
    def each(n):
        @task.branch
        def odd_or_even(x):
            return "each.odd" if x % 2 else "each.even"

        odd_or_even(n) >> [EmptyOperator(task_id="odd"), EmptyOperator(task_id="even")]

    each.expand(n=[1, 2])

    @task.short_circuit
    def closes(x):
        return x > 1

    @task
    def after():
        return "after"

    closes.expand(x=[1, 2]) >> after()
