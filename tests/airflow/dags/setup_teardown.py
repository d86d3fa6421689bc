"""Setup and teardown tasks: when they run, and the state of the run."""

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, setup, task, teardown

with DAG("setup_teardown", schedule=None):

    @setup
    def make():
        return "made"

    @task
    def works():
        return "worked"

    @task
    def breaks():
        raise ValueError("broke")

    @teardown
    def clean():
        return "cleaned"

    @task
    def cleans():
        return "cleaned too"

    made = make()
    w, b, c = works(), breaks(), clean()
    made >> w >> b >> c
    made >> c
    b >> EmptyOperator(task_id="after_break")

    made2 = make.override(task_id="make2")()
    cleans.override(task_id="clean2")().as_teardown(setups=made2)
    with made2:
        inside = works.override(task_id="inside")()
    inside >> EmptyOperator(task_id="outside")

    @setup
    def bad_setup():
        raise ValueError("no setup")

    bad = bad_setup()
    bad >> works.override(task_id="needs_it")() >> cleans.override(task_id="never_cleans")().as_teardown(setups=bad)
