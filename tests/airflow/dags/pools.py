"""A pool with one slot: the task with the highest weight runs first."""

import os
import tempfile
import time

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, task

with DAG("pools", schedule=None):

    @task
    def place(run_id):
        path = os.path.join(tempfile.gettempdir(), f"order-{run_id}")
        with open(path, "a+") as file:
            file.write("x")
        time.sleep(0.3)
        return os.path.getsize(path)

    for weight in (1, 5, 3, 4, 2):
        place.override(task_id=f"weight_{weight}", pool="single", priority_weight=weight)()
    light = place.override(task_id="light", pool="single", priority_weight=-1, weight_rule="absolute")()
    light >> EmptyOperator(task_id="below_light", priority_weight=50)
    heavy = place.override(task_id="heavy", pool="single", priority_weight=1)()
    heavy >> EmptyOperator(task_id="below_heavy", priority_weight=50)
    place.override(task_id="up", pool="single", weight_rule="upstream", priority_weight=7)()
