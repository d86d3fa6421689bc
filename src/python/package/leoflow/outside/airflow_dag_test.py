"""A run of `DAG.test()` with Airflow's SDK, see `dag_test`. Afterwards, the process is as it was before."""

from __future__ import annotations

import contextlib
import copy
import logging
import sys

from leoflow.common import task_log
from leoflow.outside import dag_test
from leoflow.sdk import logs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any


def run(dag: Any, logical_date: Any, run_conf: dict[str, Any] | None, mark_success_pattern: Any) -> dag_test.TestedRun:
    """Runs a DAG; raises Airflow's ParamValidationError for invalid params."""
    params = copy.deepcopy(dag.params)
    params.update(run_conf or {})
    params.validate()
    with kept_params(dag), kept_supervisor(), own_logging():
        return dag_test.run(dag, logical_date, run_conf, mark_success_pattern)


@contextlib.contextmanager
def kept_params(dag: Any) -> Iterator[None]:
    """Restores the params, into which a run writes the values of its `conf`."""
    owners = [dag, *(task for task in dag.tasks if not task.is_mapped)]
    params = [copy.deepcopy(owner.params) for owner in owners]
    try:
        yield
    finally:
        for owner, values in zip(owners, params, strict=True):
            owner.params = values


@contextlib.contextmanager
def kept_supervisor() -> Iterator[None]:
    """Restores the supervisor: code outside of a task reads Variables without one."""
    from airflow.sdk.execution_time import task_runner

    before = vars(task_runner).get("SUPERVISOR_COMMS")
    try:
        yield
    finally:
        if before is None:
            vars(task_runner).pop("SUPERVISOR_COMMS", None)
        else:
            task_runner.SUPERVISOR_COMMS = before


@contextlib.contextmanager
def own_logging() -> Iterator[None]:
    """Shows the log as `leoflow dags test` does, and keeps the handlers of pytest, which the fixture `caplog` reads."""
    import structlog

    root, hook, configuration = logging.getLogger(), sys.excepthook, structlog.get_config()
    handlers, level = root.handlers[:], root.level
    logs.configure(task_log.to_terminal)
    root.handlers += [handler for handler in handlers if type(handler).__module__.startswith("_pytest")]
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        sys.excepthook = hook
        structlog.configure(**configuration)
        logs.forget()
