"""The first failure ends the run; teardowns still run."""

import time

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, task

with DAG("fails_fast", schedule=None, fail_fast=True):

    @task
    def fails():
        time.sleep(1)
        raise ValueError("no")

    @task
    def cleans():
        return "clean"

    fails() >> EmptyOperator(task_id="after")
    begin = EmptyOperator(task_id="begin").as_setup()

    @task
    def waits():
        time.sleep(60)

    begin >> waits() >> cleans().as_teardown(setups=begin)
