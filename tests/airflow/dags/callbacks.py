"""Callbacks of tasks: which are called, how often, and with which context."""

import json
import os
import tempfile
import time

from airflow.exceptions import AirflowSkipException
from airflow.sdk import DAG, task


def place(run_id):
    return os.path.join(tempfile.gettempdir(), f"callbacks-{run_id}")


def note(kind):
    def callback(context):
        error = context.get("exception")
        call = [kind, context["ti"].task_id, context["ti"].try_number, str(error) if error else None]
        with open(place(context["run_id"]), "a") as file:
            file.write(json.dumps(call) + "\n")

    return callback


def broken(context):
    raise ValueError("a callback that fails")


KINDS = ("on_execute_callback", "on_success_callback", "on_failure_callback", "on_retry_callback", "on_skipped_callback")
with DAG("callbacks", schedule=None, default_args={kind: note(kind) for kind in KINDS} | {"retry_delay": 0}):

    @task
    def good():
        return 1

    @task(retries=1)
    def bad():
        raise ValueError("bad")

    @task
    def skipped():
        raise AirflowSkipException("skipped")

    @task(on_success_callback=[broken, note("second")])
    def several():
        return 2

    @task
    def never():
        return 3

    @task(trigger_rule="all_done", on_execute_callback=None, on_success_callback=None)
    def collect(run_id):
        deadline = time.monotonic() + 20
        lines = []
        while len(lines) < 10 and time.monotonic() < deadline:
            time.sleep(0.2)
            with open(place(run_id)) as file:
                lines = file.read().splitlines()
        return sorted(map(json.loads, lines), key=json.dumps)

    b = bad()
    last = collect()
    b >> never()
    [good(), b, skipped(), several()] >> last
