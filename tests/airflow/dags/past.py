"""Tasks that wait for their own previous instance, and for its downstream tasks."""

from datetime import datetime, timezone

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, task

with DAG(
    "past",
    schedule="0 0 * * *",
    start_date=datetime(2024, 3, 1, tzinfo=timezone.utc),
    end_date=datetime(2024, 3, 3, tzinfo=timezone.utc),
    catchup=True,
):

    @task(depends_on_past=True)
    def counts(ds):
        return ds

    @task
    def later(ds):
        return ds

    @task(wait_for_downstream=True)
    def waits(ds):
        return ds

    counts()
    waits() >> later()
    EmptyOperator(task_id="from_second", start_date=datetime(2024, 3, 2, tzinfo=timezone.utc))
    EmptyOperator(task_id="until_second", end_date=datetime(2024, 3, 2, tzinfo=timezone.utc))
