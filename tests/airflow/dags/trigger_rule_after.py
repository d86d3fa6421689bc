"""Trigger rules after upstream_failed tasks, and the state of the run."""

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, task


@task
def fails():
    raise RuntimeError("no")


@task(trigger_rule="all_done")
def cleans_up():
    return "cleaned"


@task(trigger_rule="one_failed")
def alarm():
    return "alarm"


with DAG("trigger_rule_after", schedule=None):
    first = fails()
    never = EmptyOperator(task_id="never")
    first >> never >> [cleans_up(), alarm()]
    never >> EmptyOperator(task_id="none_skipped", trigger_rule="none_skipped")
    never >> EmptyOperator(task_id="all_failed", trigger_rule="all_failed")
    never >> EmptyOperator(task_id="one_done", trigger_rule="one_done")
    EmptyOperator(task_id="always", trigger_rule="always") << never
