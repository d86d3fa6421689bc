"""Failed teardowns that do, or do not, affect the state of the run."""

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, task

with DAG("teardown_counts", schedule=None):

    @task
    def fails():
        raise ValueError("no")

    @task
    def deep():
        return 1

    s1, s2 = EmptyOperator(task_id="s1").as_setup(), EmptyOperator(task_id="s2").as_setup()
    t1 = fails.override(task_id="t1")().as_teardown(setups=s1)
    work = EmptyOperator(task_id="work")
    s1 >> work >> t1
    middle = deep()
    end = EmptyOperator(task_id="end", trigger_rule="all_success")
    s2 >> EmptyOperator(task_id="m1") >> middle >> end >> EmptyOperator(task_id="t2").as_teardown(setups=s2)
