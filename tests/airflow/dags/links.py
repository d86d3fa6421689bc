"""Edges by chain, chain_linear and cross_downstream, with lists on both sides."""

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, chain, chain_linear, cross_downstream, task

with DAG("links", schedule=None):

    def some(name, count):
        return [EmptyOperator(task_id=f"{name}{at}") for at in range(count)]

    a, b, c, d = some("a", 2), some("b", 2), some("c", 3), some("d", 1)
    chain(EmptyOperator(task_id="start"), a, b, EmptyOperator(task_id="middle"))
    chain_linear(b, c, d)
    cross_downstream(a, d)

    @task(trigger_rule="all_done")
    def above(task):
        return sorted(task.get_flat_relative_ids(upstream=True))

    d >> above()
