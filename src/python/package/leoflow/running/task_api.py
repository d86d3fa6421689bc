"""Requests of a running task to the server, except requests for Variables, Connections and XComs."""

from __future__ import annotations

from leoflow.authoring.assets.definitions import Asset
from leoflow.common.client import ServerError, quote
from leoflow.common.dates import iso
from leoflow.common.exceptions import (
    AirflowException,
    AirflowInactiveAssetInInletOrOutletException,
    AirflowRuntimeError,
    DagNotFound,
    DagRunAlreadyExists,
)
from leoflow.common.leoflow_server import client
from leoflow.common.reports import clean
from leoflow.running.asset_events import AssetEvent, ByAsset, InletEvents

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from leoflow.authoring.assets.definitions import BaseAsset


class TaskApi:
    def __init__(self):
        self._previous = None

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        return client().request(method, f"/task/{path}", body)

    def dag(self, dag_id: str) -> dict[str, Any]:
        try:
            return self.ask("GET", f"dags/{quote(dag_id)}")
        except ServerError as error:
            raise DagNotFound(f"Dag {dag_id}: {error}") from None

    def trigger(self, dag_id, run_id, conf, logical_date, run_after, note, reset):
        body = {"dag_id": dag_id, "run_id": run_id, "conf": conf, "logical_date": iso(logical_date),
                "run_after": iso(run_after), "note": note, "reset": bool(reset)}
        try:
            self.ask("POST", "runs/trigger", body)
        except ServerError as error:
            if error.status == 409:
                raise DagRunAlreadyExists(str(error)) from None
            if error.status == 404 and reset:
                # Raises DagNotFound; if the DAG exists, the run to reset is missing.
                self.dag(dag_id)
            kind = DagNotFound if error.status == 404 and not reset else AirflowException
            raise kind(f"Dag {dag_id} cannot be triggered: {error}") from None

    def run_state(self, dag_id: str, run_id: str) -> str | None:
        try:
            return self.ask("POST", "runs/state", {"dag_id": dag_id, "run_id": run_id})["state"]
        except ServerError as error:
            raise AirflowRuntimeError(f"the run {run_id} of {dag_id}: {error}") from None

    def count(self, dag_id: str, task_ids: list[str] | None, group_id: str | None, dates: list[str], states: list[str]) -> int:
        body = {"dag_id": dag_id, "task_ids": task_ids, "group_id": group_id, "dates": dates, "states": states}
        return self.ask("POST", "runs/count", body)["count"]

    def length(self, expression: Any) -> int:
        """Evaluates a length expression for this run."""
        return expression if isinstance(expression, int) else self.ask("POST", "length", {"length": expression})["length"] or 0

    def previous(self) -> dict[str, Any]:
        """Returns the last successful run before this one, or an empty dict."""
        if self._previous is None:
            self._previous = self.ask("GET", "previous") or {}
        return self._previous

    def is_latest_run(self) -> bool:
        return self.ask("GET", "latest")["is_latest"]

    def name_instance(self, name: str) -> None:
        """Sends the name of a mapped instance to the server, which displays it while the task runs. The result of the
        try also contains the name."""
        try:
            self.ask("POST", "map-index-name", {"name": clean(name)})
        except ServerError:
            # The server of an older release does not know the request.
            pass

    def asset(self, name: str) -> Asset:
        """Returns the asset with that name from the datastore. Raises AirflowRuntimeError if no DAG declares it."""
        try:
            fields = self.ask("POST", "assets/one", {"name": name})
        except ServerError as error:
            if error.status == 404:
                raise AirflowRuntimeError(f"no DAG declares an asset named {name!r}") from None
            raise
        return Asset(fields["name"], fields["uri"], group=fields["group"], extra=fields["extra"])

    def check_assets(self) -> None:
        """Raises AirflowInactiveAssetInInletOrOutletException if another asset has the name or URI of an inlet or outlet
        of the task."""
        try:
            inactive = self.ask("GET", "assets/inactive")
        except ServerError as error:
            # The server of an older release does not know the request.
            if error.status == 404:
                return
            raise
        if inactive:
            names = ", ".join(f'Asset(name="{row["name"]}", uri="{row["uri"]}")' for row in inactive)
            raise AirflowInactiveAssetInInletOrOutletException(
                f"Task has the following inactive assets in its inlets or outlets: {names}. Another asset has the same name or "
                "URI: the warnings of the DAG name it")

    def triggering_events(self) -> ByAsset:
        events = {}
        for row in self.ask("GET", "assets/triggering"):
            event = AssetEvent(row)
            for key in (Asset(row["name"], row["uri"]), *event.source_aliases):
                events.setdefault(key, []).append(event)
        return ByAsset(events)

    def inlet_events(self, inlets: list) -> InletEvents:
        return InletEvents(self, inlets)

    def events_of(self, inlet: BaseAsset) -> list[AssetEvent]:
        return [AssetEvent(row) for row in self.ask("POST", "assets/events", {"of": inlet.to_structure()})]
