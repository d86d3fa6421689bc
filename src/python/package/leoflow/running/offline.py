"""What stands for the server where there is none: a run in the foreground, which keeps nothing."""

from __future__ import annotations

from leoflow.authoring.assets import Asset
from leoflow.common.exceptions import AirflowRuntimeError
from leoflow.common.values import decode, encode
from leoflow.running.asset_events import ByAsset
from leoflow.running.task_api import TaskApi

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Offline(TaskApi):
    """Where there is no server to ask: `leoflow dags test`."""

    def __init__(self, memory):
        super().__init__()
        self.memory = memory

    def ask(self, method, place, body=None):
        raise AirflowRuntimeError(f"a run in the foreground cannot ask the server ({place})")

    def previous(self):
        return {}

    def is_latest_run(self):
        return True

    def asset(self, name):
        return Asset(name)

    def triggering_events(self):
        return ByAsset({})

    def events_of(self, inlet):
        return []

    def length(self, words):
        return words if isinstance(words, int) else self.memory.planner.length(words, self.memory.lengths()) or 0


class Memory:
    """XComs of this one run. They go the way that stored ones do, so that what cannot be stored fails here too."""

    def __init__(self, planner):
        self.own = None
        self.kept = {}
        self.planner = planner

    def begin(self, own: tuple[str, int], again: bool) -> None:
        """Another try begins without what an earlier one left."""
        self.own = own
        if not again:
            self.kept = {place: text for place, text in self.kept.items() if place[:2] != own}

    def push(self, key: str, value: Any) -> None:
        self.kept[(*self.own, key)] = encode(key, value)

    def pull(self, dag_id: str, run_id: str, task_ids: list[str], key: str,
             map_indexes: list[int] | None, prior: bool) -> list[tuple[str, int, Any]]:
        found = [
            (task_id, index, decode(text))
            for (task_id, index, name), text in sorted(self.kept.items(), key=lambda one: one[0][:2])
            if task_id in task_ids and name == key and (map_indexes is None or index in map_indexes)
        ]
        return found

    def lengths(self) -> dict[str, int]:
        found = {}
        for (task_id, index, name), text in self.kept.items():
            if name != "return_value":
                continue
            if index >= 0:
                found[task_id] = found.get(task_id, 0) + 1
            else:
                value = decode(text)
                if isinstance(value, (list, tuple, dict)):
                    found[task_id] = len(value)
        return found

    def decisions(self) -> list[dict[str, Any]]:
        return [
            {"task_id": task_id, "map_index": index, **decode(text)}
            for (task_id, index, name), text in self.kept.items() if name == "skipmixin_key"
        ]
