"""Branches by date, time and weekday of the run's logical date."""

from datetime import datetime, time, timezone

from airflow.providers.standard.operators.datetime import BranchDateTimeOperator
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.providers.standard.operators.latest_only import LatestOnlyOperator
from airflow.providers.standard.operators.weekday import BranchDayOfWeekOperator
from airflow.providers.standard.utils.weekday import WeekDay
from airflow.sdk import DAG

with DAG("dates", schedule=None, start_date=datetime(2024, 1, 1, tzinfo=timezone.utc)):

    def two(name):
        return EmptyOperator(task_id=f"{name}_yes"), EmptyOperator(task_id=f"{name}_no")

    def by_date(name, lower, upper):
        return BranchDateTimeOperator(
            task_id=name,
            follow_task_ids_if_true=f"{name}_yes",
            follow_task_ids_if_false=[f"{name}_no"],
            target_lower=lower,
            target_upper=upper,
            use_task_logical_date=True,
        )

    utc = timezone.utc
    by_date("inside", datetime(2024, 1, 1, tzinfo=utc), datetime(2024, 2, 1, tzinfo=utc)) >> list(two("inside"))
    by_date("outside", datetime(2024, 2, 1, tzinfo=utc), None) >> list(two("outside"))
    by_date("clock", time(10, 0), time(13, 0)) >> list(two("clock"))
    by_date("overnight", time(22, 0), time(11, 0)) >> list(two("overnight"))

    def by_day(name, days):
        return BranchDayOfWeekOperator(
            task_id=name,
            follow_task_ids_if_true=f"{name}_yes",
            follow_task_ids_if_false=f"{name}_no",
            week_day=days,
            use_task_logical_date=True,
        )

    # 2024-01-15 was a Monday.
    by_day("monday", "Monday") >> list(two("monday"))
    by_day("weekend", {WeekDay.SATURDAY, "sunday"}) >> list(two("weekend"))
    LatestOnlyOperator(task_id="latest") >> EmptyOperator(task_id="after_latest")
