"""A teardown whose failure fails the run."""

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, setup, task, teardown

with DAG("teardown_fails", schedule=None):

    @setup
    def begin():
        return 1

    @teardown(on_failure_fail_dagrun=True)
    def end():
        raise ValueError("cannot clean")

    begin() >> EmptyOperator(task_id="work") >> end()
