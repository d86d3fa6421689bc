"""In which order the tasks of a DAG are told."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def ordered(tasks: dict[str, Any]) -> list[Any]:
    """By id given, each after those it waits for; of several, the one that was written first. What waits in a circle is
    not among them."""
    waiting = {task_id: len(task.upstream_task_ids) for task_id, task in tasks.items()}
    ready = [task_id for task_id, count in waiting.items() if count == 0]
    for task_id in ready:
        for down in sorted(tasks[task_id].downstream_task_ids):
            waiting[down] -= 1
            if waiting[down] == 0:
                ready.append(down)
    return [tasks[task_id] for task_id in ready]
