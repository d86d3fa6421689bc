"""The topological order of a DAG's tasks."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def ordered(tasks: dict[str, Any]) -> list[Any]:
    """Returns the tasks (a dict by id) in topological order; ties keep the order of definition. Omits tasks in a cycle
    and downstream of a cycle."""
    unordered_upstream = {task_id: len(task.upstream_task_ids) for task_id, task in tasks.items()}
    ready = [task_id for task_id, count in unordered_upstream.items() if count == 0]
    for task_id in ready:
        for down in sorted(tasks[task_id].downstream_task_ids):
            unordered_upstream[down] -= 1
            if unordered_upstream[down] == 0:
                ready.append(down)
    return [tasks[task_id] for task_id in ready]
