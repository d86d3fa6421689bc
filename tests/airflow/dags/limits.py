"""Concurrency limits of a task, of a task in a run, and of all tasks of a DAG."""

import os
import tempfile
import time

from airflow.sdk import DAG, task

with DAG("limits", schedule=None, max_active_tasks=2):

    def at_once(run_id, name):
        folder = os.path.join(tempfile.gettempdir(), f"limits-{run_id}-{name}")
        os.makedirs(folder, exist_ok=True)
        path = os.path.join(folder, str(os.getpid()))
        open(path, "w").close()
        time.sleep(0.5)
        most = len(os.listdir(folder))
        os.remove(path)
        return most

    @task(max_active_tis_per_dagrun=1)
    def alone(x, run_id):
        return at_once(run_id, "alone") <= 1

    @task(max_active_tis_per_dag=1)
    def alone_in_dag(x, run_id):
        return at_once(run_id, "dag") <= 1

    @task
    def together(x, run_id):
        return at_once(run_id, "together") <= 2

    alone.expand(x=[1, 2, 3]) >> alone_in_dag.expand(x=[1, 2, 3]) >> together.expand(x=[1, 2, 3, 4])
