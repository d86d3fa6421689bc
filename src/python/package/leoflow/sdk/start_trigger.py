"""Tasks with `start_from_trigger`, which begin with their trigger."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Stored:
    """A trigger that need not be created here: only its stored form is used."""

    def __init__(self, classpath, kwargs):
        self.stored = classpath, kwargs

    def serialize(self):
        return self.stored


def deferral(task: Any, context: dict[str, Any]) -> Exception:
    """Returns the TaskDeferred with which a task begins. As in Airflow, arguments of the trigger that are named like a
    template field of the task are templates, and its `execution_timeout` limits the wait."""
    from airflow.sdk.exceptions import TaskDeferred

    arguments = task.start_trigger_args
    kwargs = {name: task.render_template(value, context) if name in task.template_fields else value
              for name, value in (arguments.trigger_kwargs or {}).items()}
    limits = [limit for limit in (arguments.timeout, task.execution_timeout) if limit is not None]
    return TaskDeferred(
        trigger=Stored(arguments.trigger_cls, kwargs), method_name=arguments.next_method, kwargs=arguments.next_kwargs,
        timeout=min(limits, default=None))
