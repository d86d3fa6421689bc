"""Reads and writes XComs of a running task."""

from __future__ import annotations

from leoflow.common.client import ServerError
from leoflow.common.exceptions import AirflowRuntimeError
from leoflow.common.leoflow_server import client
from leoflow.common.values import NotStorable, decode, encode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class TaskXComs:
    """XComs of a running task, which the server stores."""

    def push(self, key: str, value: Any) -> None:
        if not isinstance(key, str) or not key:
            raise ValueError(f"XCom key must be a non-empty string. Received: {key!r}")
        try:
            body = {"key": key, "value_json": encode(key, value)}
        except NotStorable as error:
            raise TypeError(str(error)) from None
        try:
            client().request("POST", "/task/xcoms/push", body)
        except ServerError as error:
            raise AirflowRuntimeError(f"XCom {key!r} cannot be pushed: {error}") from None

    def pull(self, dag_id: str, run_id: str, task_ids: list[str], key: str,
             map_indexes: list[int] | None, prior: bool) -> list[tuple[str, int, Any]]:
        """Returns tuples of task_id, map index and value, in this order. `map_indexes=None` means all instances;
        `prior` also includes earlier runs."""
        body = {"dag_id": dag_id, "run_id": run_id, "task_ids": task_ids, "key": key, "map_indexes": map_indexes,
                "include_prior_dates": prior}
        try:
            entries = client().request("POST", "/task/xcoms/pull", body)
        except ServerError as error:
            raise AirflowRuntimeError(f"XCom {key!r} cannot be pulled: {error}") from None
        return [(entry["task_id"], entry["map_index"], decode(entry["value_json"])) for entry in entries]
