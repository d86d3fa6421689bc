"""Tasks with `start_from_trigger`, which start deferred, with their trigger."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class StoredTrigger:
    """Stands in for a trigger: only the stored form is needed, so the trigger's class is not imported."""

    def __init__(self, classpath, kwargs):
        self.stored = classpath, kwargs

    def serialize(self):
        return self.stored


def deferral(task: Any, context: dict[str, Any]) -> Exception:
    """Returns the TaskDeferred with which a task starts. As in Airflow, an argument of the trigger is a template if the
    task has a template field of the same name, and the task's `execution_timeout` limits the wait."""
    from airflow.sdk.exceptions import TaskDeferred

    arguments = task.start_trigger_args
    kwargs = {name: task.render_template(value, context) if name in task.template_fields else value
              for name, value in (arguments.trigger_kwargs or {}).items()}
    limits = [limit for limit in (arguments.timeout, task.execution_timeout) if limit is not None]
    return TaskDeferred(
        trigger=StoredTrigger(arguments.trigger_cls, kwargs), method_name=arguments.next_method, kwargs=arguments.next_kwargs,
        timeout=min(limits, default=None))
