"""A timetable of data intervals."""

from datetime import datetime, timezone

from airflow.sdk import DAG, CronDataIntervalTimetable, task

with DAG(
    "intervals",
    schedule=CronDataIntervalTimetable("0 6 * * 1", timezone="UTC"),
    start_date=datetime(2024, 1, 1, tzinfo=timezone.utc),
    end_date=datetime(2024, 1, 20, tzinfo=timezone.utc),
    catchup=True,
):

    @task
    def interval(data_interval_start, data_interval_end):
        return [data_interval_start.isoformat(), data_interval_end.isoformat()]

    interval()
