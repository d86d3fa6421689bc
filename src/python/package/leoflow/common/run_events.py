"""The events of DAG runs that listeners of plugins receive.
<https://airflow.apache.org/docs/apache-airflow/stable/administration-and-deployment/listeners.html>"""

from __future__ import annotations

from leoflow.common.masking import hide
from leoflow.common.reports import describe, explain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# Hooks by the state that a run has reached.
HOOKS = {"running": "on_dag_run_running", "success": "on_dag_run_success", "failed": "on_dag_run_failed"}
# Reasons of calls for which a DAG's own callbacks are not called: the run has started, or a user has marked it.
STARTED, MARKED = "started", "marked"


def calls_callbacks(spec: dict[str, Any]) -> bool:
    """True if the DAG's own callbacks are called, beside the listeners."""
    return spec["reason"] not in (STARTED, MARKED)


def message(spec: dict[str, Any]) -> str:
    """Returns the argument `msg` of the listeners, as Airflow words it."""
    if spec["reason"] == MARKED:
        return f"Dag Run's state was manually set to `{spec['state']}`."
    return spec["reason"]


def problem(callback: Any, error: BaseException) -> dict[str, Any]:
    """Describes a failed callback: its name, the error, and a report with its traceback. `callback` is a callable, the
    hook of a listener, or None if the process failed before it called one."""
    if callback is not None and not isinstance(callback, str):
        callback = getattr(callback, "__qualname__", type(callback).__qualname__)
    return {"callback": callback, "error": describe(error), "report": hide(explain(error))}


class Component:
    """The argument of `on_starting` and `before_stopping`: the process that calls the listeners."""
