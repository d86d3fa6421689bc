"""Triggers runs of another DAG, with and without waiting for them."""

from datetime import datetime, timezone

from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.sdk import DAG, task

with DAG("triggers", schedule=None, start_date=datetime(2024, 1, 1, tzinfo=timezone.utc)):
    first = TriggerDagRunOperator(
        task_id="first",
        trigger_dag_id="triggered",
        trigger_run_id="by_first",
        conf={"from": "{{ dag.dag_id }}", "n": 1},
        wait_for_completion=True,
        poke_interval=0.5,
        logical_date="2024-02-01T00:00:00+00:00",
    )
    again = TriggerDagRunOperator(
        task_id="again", trigger_dag_id="triggered", trigger_run_id="by_first", skip_when_already_exists=True
    )
    refused = TriggerDagRunOperator(task_id="refused", trigger_dag_id="triggered", trigger_run_id="by_first", retries=2)
    nobody = TriggerDagRunOperator(task_id="nobody", trigger_dag_id="no_such_dag")
    failing = TriggerDagRunOperator(
        task_id="failing",
        trigger_dag_id="triggered",
        trigger_run_id="failing",
        conf={"fail": True},
        wait_for_completion=True,
        poke_interval=0.5,
        logical_date=None,
    )

    @task
    def look(ti):
        return ti.xcom_pull(task_ids="first", key="trigger_run_id")

    first >> [again, refused, nobody, failing, look()]
