"""Branches by function and by operator: to one task, several tasks, a group, or nothing."""

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.providers.standard.operators.python import BranchPythonOperator
from airflow.sdk import DAG, Label, TaskGroup, task

with DAG("branching", schedule=None):
    choose = BranchPythonOperator(task_id="choose", python_callable=lambda: "left")
    left, right = EmptyOperator(task_id="left"), EmptyOperator(task_id="right")
    join = EmptyOperator(task_id="join", trigger_rule="none_failed_min_one_success")
    plain_join = EmptyOperator(task_id="plain_join")
    choose >> Label("this one") >> left
    choose >> Label("not this") >> right
    [left, right] >> join
    [left, right] >> plain_join

    @task.branch
    def several(params):
        return ["one", "two"]

    s = several()
    ends = [EmptyOperator(task_id=name) for name in ("one", "two", "three")]
    s >> ends

    @task.branch
    def none():
        return None

    none() >> [EmptyOperator(task_id="a"), EmptyOperator(task_id="b")]

    @task.branch
    def into_group():
        return "group"

    with TaskGroup("group") as group:
        EmptyOperator(task_id="x") >> EmptyOperator(task_id="y")
    g = into_group()
    outside = EmptyOperator(task_id="outside")
    g >> [group, outside]

    @task.branch
    def further():
        return "far"

    near, far, other = (EmptyOperator(task_id=name) for name in ("near", "far", "other"))
    further() >> [near, other]
    near >> far

    @task.branch
    def wrong():
        return "nowhere"

    wrong() >> EmptyOperator(task_id="after_wrong")
