"""Answers the SDK's messages about XComs. Values are in Airflow's storage format, which Leoflow uses, too."""

from __future__ import annotations

import json

from leoflow.common.client import ServerError
from leoflow.common.values import LARGEST_BYTES
from leoflow.sdk.messages.models import make

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

RETURN = "return_value"
# Number of values of a mapped task that are fetched at once, because a task usually reads them in sequence.
PREFETCHED_VALUES = 100


class XComs:
    def __init__(self, spec: dict[str, Any], supervisor: Any):
        self.spec = spec
        self.supervisor = supervisor
        # The return value, as JSON text by key. It is sent with the result, so that one transaction stores both.
        self.returned = {}
        # Number of elements of the return value, if other tasks are mapped over it.
        self.mapped_length = None
        # Prefetched values of one mapped task and the index of the first, by dag_id, run_id, task_id, key and iteration.
        self.prefetched = {}

    def answers(self) -> dict[str, Callable[[Any], Any]]:
        return {
            "SetXCom": self.set, "GetXCom": self.get, "DeleteXCom": self.delete, "GetXComCount": self.count,
            "GetXComSequenceItem": self.item, "GetXComSequenceSlice": self.slice,
        }

    def take_return_value(self) -> dict[str, str]:
        """Removes and returns the return value, which then becomes part of the result."""
        returned, self.returned = self.returned, {}
        return returned

    def flush(self) -> None:
        """Pushes the return value of a task that does not succeed."""
        for key, text in self.take_return_value().items():
            self.push(key, text)

    def is_own(self, message):
        names = ("dag_id", "run_id", "task_id")
        index = -1 if message.map_index is None else message.map_index
        is_own = all(getattr(message, name) == self.spec[name] for name in names) and index == self.spec["map_index"]
        return is_own and not getattr(message, "previous_iteration", False)

    def iteration(self, message):
        """Returns the iteration of the loop from which the values of a task come: that of the reading task, or the one
        before, if both are in one loop of one run; otherwise None, for all iterations. A trigger reads its own task's."""
        tasks = self.spec["loop"]["tasks"] if self.spec.get("loop") else [self.spec["task_id"]]
        is_shared = self.spec.get("iteration") is not None and message.task_id in tasks
        if not is_shared or (message.dag_id, message.run_id) != (self.spec["dag_id"], self.spec["run_id"]):
            return None
        return self.spec["iteration"] - (1 if getattr(message, "previous_iteration", False) else 0)

    def set(self, message):
        if not self.is_own(message):
            raise ServerError(403, f"XCom {message.key!r} belongs to another task, {message.dag_id}.{message.task_id}")
        max_map_length = self.spec.get("max_map_length", 1024)
        if message.mapped_length is not None and message.mapped_length > max_map_length:
            raise ServerError(400, f"unmappable return value length: {message.mapped_length} > {max_map_length}; "
                                   "the setting max_map_length raises the limit")
        try:
            text = json.dumps(message.value, ensure_ascii=False, allow_nan=False)
        except ValueError as error:
            raise ServerError(400, f"XCom {message.key!r} cannot be stored: {error}") from None
        if len(text.encode()) > LARGEST_BYTES:
            raise ServerError(400, f"XCom {message.key!r} is larger than {LARGEST_BYTES} bytes: write it to a file or a table, "
                                   "and return its name")
        if message.key == RETURN:
            self.keep_return_value(text, message.mapped_length)
        else:
            self.push(message.key, text)
        return make("OKResponse", ok=True)

    def keep_return_value(self, text, mapped_length):
        self.returned[RETURN], self.mapped_length = text, mapped_length

    def push(self, key, text):
        self.supervisor.ask("xcoms/push", {"key": key, "value_json": text})

    def get(self, message):
        if self.is_own(message) and message.key in self.returned:
            return make("XComResult", key=message.key, value=json.loads(self.returned[message.key]))
        values = self.pull(message, [-1 if message.map_index is None else message.map_index])
        return make("XComResult", key=message.key, value=values[0] if values else None)

    def delete(self, message):
        if not self.is_own(message):
            raise ServerError(403, f"XCom {message.key!r} belongs to another task, {message.dag_id}.{message.task_id}")
        self.returned.pop(message.key, None)
        self.supervisor.ask("xcoms/delete", {"key": message.key})
        return make("OKResponse", ok=True)

    def pull(self, message, indexes, **window):
        """Pulls the values at these map indexes, or at all for None. `window` may have `offset` and `limit`."""
        body = {"dag_id": message.dag_id, "run_id": message.run_id, "task_ids": [message.task_id], "key": message.key,
                "map_indexes": indexes, "iteration": self.iteration(message),
                "include_prior_dates": getattr(message, "include_prior_dates", False), **window}
        return [json.loads(row["value_json"]) for row in self.supervisor.ask("xcoms/pull", body)]

    def count(self, message):
        body = {"dag_id": message.dag_id, "run_id": message.run_id, "task_id": message.task_id, "key": message.key,
                "iteration": self.iteration(message)}
        return make("XComCountResponse", len=self.supervisor.ask("xcoms/count", body)["count"])

    def item(self, message):
        key = (message.dag_id, message.run_id, message.task_id, message.key, self.iteration(message))
        offset = message.offset
        if offset < 0:
            values, position = self.pull(message, None), offset
            is_there = -offset <= len(values)
        else:
            values, first = self.prefetched.get(key, ([], 0))
            if not first <= offset < first + len(values):
                values, first = self.pull(message, None, offset=offset, limit=PREFETCHED_VALUES), offset
                self.prefetched = {key: (values, first)}
            position = offset - first
            is_there = position < len(values)
        if not is_there:
            return self.supervisor.error("XCOM_NOT_FOUND", offset=offset)
        return make("XComSequenceIndexResult", root=values[position])

    def slice(self, message):
        values = self.pull(message, None)
        return make("XComSequenceSliceResult", root=values[message.start:message.stop:message.step])
