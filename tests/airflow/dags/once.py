"""A single run, as soon as possible."""

from datetime import datetime, timezone

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG

with DAG("once", schedule="@once", start_date=datetime(2024, 5, 5, 5, tzinfo=timezone.utc)):
    EmptyOperator(task_id="nothing")
