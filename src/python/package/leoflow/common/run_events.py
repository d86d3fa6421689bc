"""The events of DAG runs that listeners of plugins receive, and the failed tries whose processes were killed.
<https://airflow.apache.org/docs/apache-airflow/stable/administration-and-deployment/listeners.html>"""

from __future__ import annotations

from leoflow.common.exceptions import AirflowException
from leoflow.common.masking import hide
from leoflow.common.reports import describe, explain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

# Hooks by the state that a run has reached.
HOOKS = {"running": "on_dag_run_running", "success": "on_dag_run_success", "failed": "on_dag_run_failed"}
# Hook of a failed try, whether the task is retried or not.
TASK_FAILED = "on_task_instance_failed"
# Reasons of calls for which a DAG's own callbacks are not called: the run has started, or a user has marked it.
STARTED, MARKED = "started", "marked"
# States of a task by the reasons of calls for a failed try that owes the task's callbacks.
KILLED = {"task_failed": "failed", "task_up_for_retry": "up_for_retry"}


def calls_callbacks(spec: dict[str, Any]) -> bool:
    """True if the DAG's own callbacks are called, beside the listeners."""
    return spec["reason"] not in (STARTED, MARKED)


def sends_email(task: Any, state: str) -> bool:
    """True if a failed task sends an e-mail in its state in `KILLED`."""
    return bool(task.email and (task.email_on_retry if state == "up_for_retry" else task.email_on_failure))


def call_back_of_try(spec: dict[str, Any], context: Any, notify: Callable[[BaseException], Any], send_email: Callable[[], Any]) -> list:
    """Calls the callbacks and, by `notify`, the listeners of a failed try whose process was killed, and sends its e-mail.
    Returns the problems."""
    state, problems, task = KILLED[spec["reason"]], [], context["task"]
    error = context["exception"] = AirflowException(spec["error"])
    functions = (task.on_retry_callback if state == "up_for_retry" else task.on_failure_callback) or ()
    functions = functions if isinstance(functions, (list, tuple)) else [functions]
    calls = [(function, lambda function=function: function(context)) for function in functions]
    calls.append((TASK_FAILED, lambda: notify(error)))
    if sends_email(task, state):
        calls.append((f"email of {task.task_id}", send_email))
    for name, call in calls:
        try:
            call()
        except Exception as failure:
            problems.append(problem(name, failure))
    return problems


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
