"""A timetable with several cron expressions and a data interval."""

from datetime import datetime, timedelta, timezone

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, MultipleCronTriggerTimetable

with DAG(
    "several_crons",
    schedule=MultipleCronTriggerTimetable("0 3 * * *", "15 4 1,L * *", timezone="UTC", interval=timedelta(hours=1)),
    start_date=datetime(2024, 1, 30, 12, tzinfo=timezone.utc),
    end_date=datetime(2024, 2, 1, 12, tzinfo=timezone.utc),
    catchup=True,
):
    EmptyOperator(task_id="nothing")
