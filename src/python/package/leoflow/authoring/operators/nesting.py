"""The argument `allow_nested_operators`."""

from __future__ import annotations

from leoflow.common import current

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def guard_execute(task: Any) -> None:
    """Makes `execute` raise RuntimeError, as in Airflow, if another operator calls it or no task is running. Replaces
    the class of the task instead of an attribute, because a copy of the task runs."""
    kind = type(task)

    def execute(self, context):
        running = current.context()
        if running is None or running.get("task") is not self:
            raise RuntimeError(f"{kind.__name__}.execute cannot be called outside of the Task Runner!")
        return kind.execute(self, context)

    names = {"execute": execute, "__module__": kind.__module__, "__qualname__": kind.__qualname__, "__doc__": kind.__doc__}
    object.__setattr__(task, "__class__", type(kind.__name__, (kind,), names))
