"""What a running task asks of the server, beside Variables, Connections and XComs."""

from __future__ import annotations

from leoflow.authoring.assets import Asset
from leoflow.common.client import ServerError, quote
from leoflow.common.exceptions import AirflowException, AirflowRuntimeError, DagNotFound, DagRunAlreadyExists
from leoflow.running.asset_events import AssetEvent, ByAsset, InletEvents

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from leoflow.authoring.assets import BaseAsset


class TaskApi:
    def __init__(self):
        self._previous = None

    def ask(self, method: str, place: str, body: Any = None) -> Any:
        from leoflow.common.leoflow_server import client

        return client().request(method, f"/task/{place}", body)

    def dag(self, dag_id: str) -> dict[str, Any]:
        try:
            return self.ask("GET", f"dags/{quote(dag_id)}")
        except ServerError as error:
            raise DagNotFound(f"Dag {dag_id}: {error}") from None

    def trigger(self, dag_id, run_id, conf, logical_date, run_after, note, reset):
        def stamp(value):
            return None if value is None else value.isoformat()
        body = {"dag_id": dag_id, "run_id": run_id, "conf": conf, "logical_date": stamp(logical_date),
                "run_after": stamp(run_after), "note": note, "reset": bool(reset)}
        try:
            self.ask("POST", "runs/trigger", body)
        except ServerError as error:
            if error.status == 409:
                raise DagRunAlreadyExists(str(error)) from None
            kind = DagNotFound if error.status == 404 else AirflowException
            raise kind(f"Dag {dag_id} cannot be triggered: {error}") from None

    def run_state(self, dag_id: str, run_id: str) -> str | None:
        try:
            return self.ask("POST", "runs/state", {"dag_id": dag_id, "run_id": run_id})["state"]
        except ServerError as error:
            raise AirflowRuntimeError(f"the run {run_id} of {dag_id}: {error}") from None

    def count(self, dag_id: str, task_ids: list[str] | None, group_id: str | None, dates: list[str], states: list[str]) -> int:
        body = {"dag_id": dag_id, "task_ids": task_ids, "group_id": group_id, "dates": dates, "states": states}
        return self.ask("POST", "runs/count", body)["count"]

    def length(self, words: Any) -> int:
        """How many elements there are, in this run."""
        return words if isinstance(words, int) else self.ask("POST", "length", {"length": words})["length"] or 0

    def previous(self) -> dict[str, Any]:
        """The last run before this one that succeeded; an empty dict without one."""
        if self._previous is None:
            self._previous = self.ask("GET", "previous") or {}
        return self._previous

    def is_latest_run(self) -> bool:
        return self.ask("GET", "latest")["is_latest"]

    def asset(self, name: str) -> Asset:
        """The asset of that name, as some DAG has declared it."""
        try:
            told = self.ask("POST", "assets/one", {"name": name})
        except ServerError as error:
            if error.status == 404:
                raise AirflowRuntimeError(f"there is no asset named {name!r}: no DAG declares one") from None
            raise
        return Asset(told["name"], told["uri"], group=told["group"], extra=told["extra"])

    def triggering_events(self) -> ByAsset:
        found = {}
        for one in self.ask("GET", "assets/triggering"):
            event = AssetEvent(one)
            for key in (Asset(one["name"], one["uri"]), *event.source_aliases):
                found.setdefault(key, []).append(event)
        return ByAsset(found)

    def inlet_events(self, inlets: list) -> InletEvents:
        return InletEvents(self, inlets)

    def events_of(self, inlet: BaseAsset) -> list[AssetEvent]:
        return [AssetEvent(one) for one in self.ask("POST", "assets/events", {"of": inlet.described()})]
