"""A cron schedule with catchup: dates, and data of the previous run."""

from datetime import datetime, timezone

from airflow.sdk import DAG, task

with DAG(
    "daily",
    schedule="@daily",
    start_date=datetime(2024, 3, 1, tzinfo=timezone.utc),
    end_date=datetime(2024, 3, 3, tzinfo=timezone.utc),
    catchup=True,
    max_active_runs=1,
):

    @task
    def dates(ds, data_interval_start, data_interval_end, dag_run, prev_data_interval_start_success):
        before = prev_data_interval_start_success
        return [
            ds,
            data_interval_start.isoformat(),
            data_interval_end.isoformat(),
            dag_run.run_after.isoformat(),
            before.isoformat() if before else None,
        ]

    @task
    def from_before(ti):
        before = ti.xcom_pull(task_ids="dates", include_prior_dates=True)
        return before[0] if before else "nothing before"

    from_before() >> dates()
