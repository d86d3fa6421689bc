"""Replaces the server in foreground runs (`leoflow dags test`), which store nothing."""

from __future__ import annotations

from leoflow.authoring.assets.definitions import Asset
from leoflow.common.exceptions import AirflowRuntimeError
from leoflow.common.values import decode, encode
from leoflow.running.asset_events import ByAsset
from leoflow.running.task_api import TaskApi

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Offline(TaskApi):
    """The task API without a server."""

    def __init__(self, memory):
        super().__init__()
        self.memory = memory

    def ask(self, method, path, body=None):
        raise AirflowRuntimeError(f"not available in a foreground run, which has no server ({path})")

    def previous(self):
        return {}

    def name_instance(self, name):
        pass

    def is_latest_run(self):
        return True

    def asset(self, name):
        return Asset(name)

    def triggering_events(self):
        return ByAsset({})

    def events_of(self, inlet):
        return []

    def check_assets(self):
        pass

    def length(self, expression):
        return expression if isinstance(expression, int) else self.memory.planner.length(expression, self.memory.lengths()) or 0


class InMemoryXComs:
    """The XComs of one foreground run. They are encoded as for the datastore, so that a value that cannot be stored is
    an error here, too."""

    def __init__(self, planner):
        # Task id and map index of the current try.
        self.own = None
        self.xcoms = {}
        # Number of elements of the results that other tasks are mapped over, by task id.
        self.mapped_lengths = {}
        self.planner = planner

    def begin(self, instance: tuple[str, int], continues: bool) -> None:
        """Starts a try of an instance (task id, map index). Deletes its earlier XComs, unless the try `continues`."""
        self.own = instance
        if not continues:
            self.xcoms = {key: text for key, text in self.xcoms.items() if key[:2] != instance}

    def push(self, key: str, value: Any) -> None:
        self.xcoms[(*self.own, key)] = encode(key, value)

    def pull(self, dag_id: str, run_id: str, task_ids: list[str], key: str,
             map_indexes: list[int] | None, prior: bool) -> list[tuple[str, int, Any]]:
        return [
            (task_id, index, decode(text))
            for (task_id, index, name), text in sorted(self.xcoms.items(), key=lambda entry: entry[0][:2])
            if task_id in task_ids and name == key and (map_indexes is None or index in map_indexes)
        ]

    def lengths(self) -> dict[str, int]:
        """Returns the number of elements in the result of each task, or of instances with a result for a mapped
        task."""
        lengths = {}
        for (task_id, index, name), text in self.xcoms.items():
            if name != "return_value":
                continue
            if index >= 0:
                lengths[task_id] = lengths.get(task_id, 0) + 1
            elif self.mapped_lengths.get(task_id) is not None:
                lengths[task_id] = self.mapped_lengths[task_id]
            else:
                value = decode(text)
                if isinstance(value, (list, tuple, dict)):
                    lengths[task_id] = len(value)
        return lengths

    def decisions(self) -> list[dict[str, Any]]:
        return [
            {"task_id": task_id, "map_index": index, **decode(text)}
            for (task_id, index, name), text in self.xcoms.items() if name == "skipmixin_key"
        ]
