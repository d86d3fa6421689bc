"""The DAG for which `external` waits."""

from datetime import datetime, timezone

from airflow.sdk import DAG, TaskGroup, task

with DAG("external_other", schedule=None, start_date=datetime(2024, 1, 1, tzinfo=timezone.utc)):

    @task
    def good():
        return 1

    @task
    def bad():
        raise ValueError("bad")

    good(), bad()
    with TaskGroup("group"):

        @task
        def inside():
            return 2

        inside()
