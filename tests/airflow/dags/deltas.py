"""A timedelta schedule."""

from datetime import datetime, timedelta, timezone

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG

with DAG(
    "deltas",
    schedule=timedelta(hours=36),
    start_date=datetime(2024, 1, 1, tzinfo=timezone.utc),
    end_date=datetime(2024, 1, 6, tzinfo=timezone.utc),
    catchup=True,
):
    EmptyOperator(task_id="nothing")
