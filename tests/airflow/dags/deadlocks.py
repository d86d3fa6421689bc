"""A run that is deadlocked because no task can start."""

from datetime import datetime, timezone

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG

with DAG("deadlocks", schedule=None, start_date=datetime(2023, 1, 1, tzinfo=timezone.utc)):
    not_yet = EmptyOperator(task_id="not_yet", start_date=datetime(2030, 1, 1, tzinfo=timezone.utc))
    not_yet >> EmptyOperator(task_id="after")
    EmptyOperator(task_id="alone")
