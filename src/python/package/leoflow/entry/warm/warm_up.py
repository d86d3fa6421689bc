"""Warms up a warm Python: runs a task of its own before it forks others. Python fills caches when code runs for the first
time: those of abstract classes, of loggers, of `copy`, and the specialized bytecode. Forks share them; each would otherwise
fill them again, in a quarter of the pages that it copies."""

from __future__ import annotations

import contextlib
import logging
import os
import signal

from leoflow.authoring.dag.dag import created_dags
from leoflow.common import task_log
from leoflow.entry import small_backend
from leoflow.running.offline import InMemoryXComs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# Python 3.11 and later specialize bytecode that has run this often.
TIMES = 8
SPEC = {
    "dag_id": "warm_up", "run_id": "warm_up", "task_id": "work", "map_index": -1, "try_number": 1, "max_tries": 0, "conf": {},
    "run_type": "manual", "run_after": "2026-01-01T00:00:00Z", "max_map_length": 1024,
}


def warm_up() -> dict[str, Any]:
    """Runs the task, and restores what a task changes in its process. Has no effect outside of the process. Returns the
    result of the last try."""
    dags, environment = list(created_dags), dict(os.environ)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGALRM, signal.SIGTERM)}
    try:
        dag = own_dag()
        with loggers_of_a_task():
            for _ in range(TIMES):
                attempt = small_backend.try_in_foreground(dag, dag.get_task("work"), SPEC, InMemoryXComs(None))
                result = attempt.run()
                attempt.run_callbacks()
        return result
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for name in set(os.environ) - set(environment):
            del os.environ[name]
        os.environ.update(environment)
        created_dags[:] = dags


def own_dag():
    from airflow.sdk import DAG, task

    @task
    def work(value):
        return value

    with DAG("warm_up") as dag:
        work(1)
    return dag


@contextlib.contextmanager
def loggers_of_a_task():
    """Sets up Python's loggers as for a task whose log is discarded."""
    loggers = [logging.getLogger(name) for name in (None, *task_log.QUIET)]
    levels, handlers = [logger.level for logger in loggers], list(logging.getLogger().handlers)
    task_log.begin_loggers(task_log.line)
    try:
        yield
    finally:
        logging.getLogger().handlers[:] = handlers
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
