"""A cron schedule across the start of daylight saving time."""

from datetime import datetime
from zoneinfo import ZoneInfo

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG

zone = ZoneInfo("Europe/Berlin")
with DAG(
    "zones",
    schedule="30 2 * * *",
    start_date=datetime(2024, 3, 30, tzinfo=zone),
    end_date=datetime(2024, 4, 1, 12, tzinfo=zone),
    catchup=True,
):
    EmptyOperator(task_id="nothing")
