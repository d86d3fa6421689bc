"""Timeouts of a task and of a run."""

import time
from datetime import timedelta

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, task

with DAG("timeouts", schedule=None, dagrun_timeout=timedelta(seconds=40)):

    @task(execution_timeout=timedelta(seconds=1), retries=1, retry_delay=0, priority_weight=1000)
    def too_long():
        time.sleep(30)

    @task
    def far_too_long():
        time.sleep(60)

    too_long() >> EmptyOperator(task_id="after")
    far_too_long() >> EmptyOperator(task_id="never")
