"""The first failure ends the run; teardowns still run."""

import os
import time

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, task


def sign(run_id):
    return os.path.join(os.path.dirname(__file__), f"fails_fast {run_id}")


with DAG("fails_fast", schedule=None, fail_fast=True):

    @task
    def fails(run_id):
        # The other task must run, because one that does not run would be skipped.
        while not os.path.exists(sign(run_id)):
            time.sleep(0.1)
        os.remove(sign(run_id))
        raise ValueError("no")

    @task
    def cleans():
        return "clean"

    fails() >> EmptyOperator(task_id="after")
    begin = EmptyOperator(task_id="begin").as_setup()

    @task
    def waits(run_id):
        with open(sign(run_id), "w"):
            pass
        time.sleep(60)

    begin >> waits() >> cleans().as_teardown(setups=begin)
