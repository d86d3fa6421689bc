"""The DAGs for `ui_answers.py`: nested and mapped groups, setups, branches, labels, assets."""

from datetime import datetime

from airflow.sdk import DAG, Asset, Label, TaskGroup, setup, task, task_group, teardown

START = datetime(2026, 1, 1)


@task
def plain():
    return 1


@task
def doubled(n):
    return 2 * n


@task_group
def each(n):
    doubled.override(task_id="twice")(doubled.override(task_id="once")(n))


with DAG("ui_groups", tags=["shown", "wide"], start_date=START, schedule=None, description="Groups in groups", doc_md="# Groups"):
    first = plain.override(task_id="first")()
    with TaskGroup("outer", tooltip="the outer one") as outer:
        start = plain.override(task_id="start")()
        with TaskGroup("inner") as inner:
            left = plain.override(task_id="left")()
            right = plain.override(task_id="right")()
            left >> Label("goes on") >> right
        start >> inner
    last = plain.override(task_id="last", trigger_rule="none_failed")()
    first >> outer >> last

with DAG("ui_mapped", start_date=START, schedule=None):
    doubled.override(task_id="many").expand(n=[1, 2, 3])
    each.expand(n=[1, 2])


@setup
def opened():
    return None


@teardown
def closed():
    return None


with DAG("ui_setups", start_date=START, schedule=None):
    with TaskGroup("work"):
        opening, closing = opened(), closed()
        opening >> plain.override(task_id="between")() >> closing
        opening >> closing


@task.branch
def choose():
    return "taken"


with DAG("ui_branches", start_date=START, schedule=None):
    joined = plain.override(task_id="joined", trigger_rule="none_failed_min_one_success")()
    choose() >> [plain.override(task_id="taken")(), plain.override(task_id="left_out")()] >> joined

with DAG("ui_makes", start_date=START, schedule=None):
    plain.override(task_id="makes", outlets=[Asset("ui_made"), Asset("ui_also", uri="s3://bucket/also")])()

with DAG("ui_waits", start_date=START, schedule=[Asset("ui_made"), Asset("ui_never")]):
    plain.override(task_id="waits", inlets=[Asset("ui_made")])()
