"""The DAGs for the tests of API clients."""

import time
from datetime import datetime

from airflow.providers.standard.operators.hitl import HITLOperator
from airflow.sdk import DAG, Asset, AssetAlias, TaskGroup, task

START = datetime(2026, 1, 1)


@task(outlets=[Asset("made")])
def one():
    return {"n": 1}


@task(outlets=[Asset("made")])
def slowly():
    """Takes so long that a backfill of its DAG is still running when the test cancels the backfill."""
    time.sleep(1)


@task
def many(n):
    return n


with DAG("shown", tags=["red"], params={"name": "x"}, default_args={"retries": 1}, start_date=None):
    with TaskGroup("group"):
        one()
    many.expand(n=[1, 2])
with DAG("makes"):
    one.override(task_id="making", outlets=[Asset("alone"), AssetAlias("some")])()
with DAG("waiting", schedule=[Asset("made"), Asset("never")]):
    one.override(task_id="later")()
with DAG("daily", schedule="@daily", start_date=START, catchup=False):
    slowly.override(task_id="daily_one")()
with DAG("weekly", schedule="@weekly", start_date=START, catchup=False):
    one.override(task_id="weekly_one")()
with DAG("asks"):
    HITLOperator(task_id="ask", subject="Is it so?", options=["yes", "no"])
