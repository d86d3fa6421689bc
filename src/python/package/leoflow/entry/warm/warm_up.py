"""Warms up a warm Python: runs a task of its own before it forks others. Python fills caches when code runs for the first
time: those of abstract classes, of loggers, of `copy`, of Airflow's models, and the specialized bytecode. Forks share them;
each would otherwise fill them again, in a quarter of the pages that it copies."""

from __future__ import annotations

import os
import signal

from leoflow.common import real_sdk
from leoflow.entry import backends
from leoflow.running.offline import InMemoryXComs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# Python 3.11 and later specialize bytecode that has run this often.
TIMES = 8
SPEC = {
    "dag_id": "warm_up", "run_id": "warm_up", "task_id": "work", "map_index": -1, "try_number": 1, "max_tries": 0, "conf": {},
    "run_type": "manual", "run_after": "2026-01-01T00:00:00Z", "run_start_date": "2026-01-01T00:00:00Z", "max_map_length": 1024,
    "is_outside": True,
}


def warm_up() -> dict[str, Any]:
    """Runs the task, and restores what a task changes in its process. Returns the result of the last try;
    raises RuntimeError if it has failed."""
    if real_sdk.is_active():
        from leoflow.sdk.warm.isolation import isolated
    else:
        from leoflow.entry.warm.isolation import isolated
    backend = backends.current()
    environment = dict(os.environ)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGALRM, signal.SIGTERM)}
    try:
        with isolated():
            dag = own_dag()
            for _ in range(TIMES):
                attempt = backend.try_in_foreground(dag, dag.get_task("work"), SPEC, InMemoryXComs(None))
                result = attempt.run()
                attempt.run_callbacks()
        if result["state"] != "success":
            raise RuntimeError(result)
        return result
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for name in set(os.environ) - set(environment):
            del os.environ[name]
        os.environ.update(environment)


def own_dag():
    from airflow.sdk import DAG, task

    @task
    def work(value):
        return value

    with DAG("warm_up") as dag:
        work(1)
    return dag
