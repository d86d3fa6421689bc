"""The supervisor of SDK tasks in foreground runs (`leoflow dags test`), which have no server and store nothing."""

from __future__ import annotations

from leoflow.common.client import ServerError
from leoflow.sdk.supervisor import TaskSupervisor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class OfflineSupervisor(TaskSupervisor):
    """Answers from `memory`, which has the run's XComs by task, map index and key."""

    def __init__(self, spec: dict[str, Any], memory: Any):
        super().__init__(spec)
        self.memory = memory
        self.handlers = {"xcoms/push": self.push, "xcoms/pull": self.pull, "xcoms/count": self.count_xcoms,
                       "xcoms/delete": self.delete, "instances/count": self.count_known, "assets/triggering": lambda _: [],
                       "assets/events": lambda _: [], "assets/inactive": lambda _: [], "previous": lambda _: None,
                       "hitl/ask": self.record_question, "map-index-name": lambda _: None}
        # The question that the task asks the user.
        self.question = None

    def ask(self, path: str, body: Any = None, method: str | None = None) -> Any:
        handler = self.handlers.get(path)
        if handler is None:
            raise ServerError(0, f"not available in a foreground run, which has no server ({path})")
        return handler(body)

    def record_question(self, body):
        self.question = body

    def push(self, body):
        self.memory.xcoms[(*self.memory.own, body["key"])] = body["value_json"]

    def delete(self, body):
        self.memory.xcoms.pop((*self.memory.own, body["key"]), None)

    def pull(self, body):
        rows = [
            {"task_id": task_id, "map_index": index, "value_json": text}
            for (task_id, index, key), text in sorted(self.memory.xcoms.items(), key=lambda entry: entry[0][:2])
            if task_id in body["task_ids"] and key == body["key"]
            and (body["map_indexes"] is None or index in body["map_indexes"])
        ]
        first = body.get("offset") or 0
        return rows[first:][:body.get("limit")]

    def count_xcoms(self, body):
        query = {**body, "task_ids": [body["task_id"]], "map_indexes": None}
        return {"count": len(self.pull(query))}

    def count_known(self, body):
        """Computes the number of a task's instances from its own mapped input and those of its mapped groups."""
        lengths = self.memory.lengths()
        from leoflow.sdk.structure import expand_input_of, length

        count = 1
        task = self.task.dag.get_task(body["task_ids"][0])
        mapped = [expand_input_of(node) for node in (task, *task.iter_mapped_task_groups()) if expand_input_of(node) is not None]
        for node in mapped:
            expression = length(node)
            count *= expression if isinstance(expression, int) else self.memory.planner.length(expression, lengths) or 0
        return {"count": count}
