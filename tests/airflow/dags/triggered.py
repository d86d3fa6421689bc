"""The DAG that `triggers` triggers."""

from datetime import datetime, timezone

from airflow.sdk import DAG, task

with DAG("triggered", schedule=None, start_date=datetime(2024, 1, 1, tzinfo=timezone.utc)):

    @task
    def shows(dag_run):
        if dag_run.conf.get("fail"):
            raise ValueError("as requested")
        return [dag_run.run_id, str(dag_run.run_type), dag_run.conf]

    shows()
