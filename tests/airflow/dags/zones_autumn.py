"""A cron schedule across the end of daylight saving time, when an hour occurs twice."""

from datetime import datetime
from zoneinfo import ZoneInfo

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG

zone = ZoneInfo("Europe/Berlin")
with DAG(
    "zones_autumn",
    schedule="30 * * * *",
    start_date=datetime(2024, 10, 27, 1, tzinfo=zone),
    end_date=datetime(2024, 10, 27, 4, tzinfo=zone),
    catchup=True,
):
    EmptyOperator(task_id="nothing")
