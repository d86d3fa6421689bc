"""Retry delays with exponential backoff, up to a limit."""

from datetime import timedelta

from airflow.sdk import DAG, task

with DAG("backoff", schedule=None):

    @task(retries=3, retry_delay=timedelta(seconds=0.5), retry_exponential_backoff=True, max_retry_delay=timedelta(seconds=2))
    def third(ti):
        if ti.try_number < 3:
            raise ValueError(ti.try_number)
        return ti.try_number

    @task(retries=1, retry_delay=0, retry_exponential_backoff=2)
    def never():
        raise ValueError("never")

    third(), never()
