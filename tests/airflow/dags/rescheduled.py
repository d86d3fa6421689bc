"""Sensors in reschedule mode."""

import os
import tempfile

from airflow.providers.standard.sensors.python import PythonSensor
from airflow.sdk import DAG, task


def seen_twice(ti, run_id):
    # Each poke runs in a process of its own.
    path = os.path.join(tempfile.gettempdir(), f"seen-{run_id}-{ti.task_id}")
    with open(path, "a+") as file:
        file.write("x")
    return os.path.getsize(path) >= 2


with DAG("rescheduled", schedule=None):
    found = PythonSensor(task_id="found", python_callable=seen_twice, mode="reschedule", poke_interval=1)
    late = PythonSensor(
        task_id="late", python_callable=lambda: False, mode="reschedule", poke_interval=1, timeout=2
    )
    soft = PythonSensor(
        task_id="soft", python_callable=lambda: False, mode="reschedule", poke_interval=1, timeout=1, soft_fail=True
    )

    @task
    def after(ti):
        return ti.try_number

    found >> after()
