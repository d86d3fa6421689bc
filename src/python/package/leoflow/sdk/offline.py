"""What answers a task of Airflow's own SDK in a run in the foreground: there is no server, and nothing is kept."""

from __future__ import annotations

from leoflow.common.client import ServerError
from leoflow.sdk.supervisor import TaskSupervisor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class OfflineSupervisor(TaskSupervisor):
    """`memory` has the XComs of the run, `kept` by task, map index and key."""

    def __init__(self, spec: dict[str, Any], memory: Any):
        super().__init__(spec)
        self.memory = memory
        self.places = {"xcoms/push": self.push, "xcoms/pull": self.pull, "xcoms/count": self.count_xcoms,
                       "xcoms/delete": self.delete, "instances/count": self.count_known, "assets/triggering": lambda _: [],
                       "assets/events": lambda _: [], "previous": lambda _: None, "hitl/ask": self.asks}
        # What the task asks a person.
        self.question = None

    def ask(self, place: str, body: Any = None, method: str | None = None) -> Any:
        answer = self.places.get(place)
        if answer is None:
            raise ServerError(0, f"a run in the foreground cannot ask the server ({place})")
        return answer(body)

    def asks(self, body):
        self.question = body

    def push(self, body):
        self.memory.kept[(*self.memory.own, body["key"])] = body["value_json"]

    def delete(self, body):
        self.memory.kept.pop((*self.memory.own, body["key"]), None)

    def pull(self, body):
        found = [
            {"task_id": task_id, "map_index": index, "value_json": text}
            for (task_id, index, key), text in sorted(self.memory.kept.items(), key=lambda one: one[0][:2])
            if task_id in body["task_ids"] and key == body["key"]
            and (body["map_indexes"] is None or index in body["map_indexes"])
        ]
        first = body.get("offset") or 0
        return found[first:][:body.get("limit")]

    def count_xcoms(self, body):
        asked = {**body, "task_ids": [body["task_id"]], "map_indexes": None}
        return {"count": len(self.pull(asked))}

    def count_known(self, body):
        """How many instances a task has is known from what it is mapped over."""
        lengths = self.memory.lengths()
        from leoflow.sdk.structure import expand_input_of, length

        count = 1
        task = self.task.dag.get_task(body["task_ids"][0])
        mapped = [expand_input_of(one) for one in (task, *task.iter_mapped_task_groups()) if expand_input_of(one) is not None]
        for one in mapped:
            words = length(one)
            count *= words if isinstance(words, int) else self.memory.planner.length(words, lengths) or 0
        return {"count": count}
