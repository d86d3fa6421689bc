"""The events of DAG runs that listeners of plugins receive.
<https://airflow.apache.org/docs/apache-airflow/stable/administration-and-deployment/listeners.html>"""

from __future__ import annotations

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


class Component:
    """The argument of `on_starting` and `before_stopping`: the process that calls the listeners."""
