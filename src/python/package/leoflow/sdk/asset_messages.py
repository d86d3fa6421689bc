"""Assets, as a task that Airflow's own SDK runs asks for them and tells of them."""

from __future__ import annotations

from leoflow.common.client import ServerError
from leoflow.sdk.models import make
from leoflow.sdk.structure import is_asset, of_asset

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


class Assets:
    def __init__(self, supervisor: Any):
        self.supervisor = supervisor

    def answers(self) -> dict[str, Callable[[Any], Any]]:
        return {
            "GetAssetByName": lambda message: self.asset({"name": message.name}),
            "GetAssetByUri": lambda message: self.asset({"uri": message.uri}),
            "GetAssetsByAlias": self.of_alias,
            "GetAssetEventByAsset": self.events_of_asset, "GetAssetEventByAssetAlias": self.events_of_alias,
            # Whether one is in use is for the scheduler to decide: here they all are.
            "ValidateInletsAndOutlets": lambda _: make("InactiveAssetsResult", inactive_assets=[]),
        }

    def asset(self, of):
        try:
            return make("AssetResult", **self.supervisor.ask("assets/one", of))
        except ServerError as error:
            if error.status == 404:
                return self.supervisor.error("ASSET_NOT_FOUND", **of)
            raise

    def of_alias(self, message):
        found = self.supervisor.ask("assets/of-alias", {"alias": message.alias_name})
        return make("AssetsByAliasResult", assets=[make("AssetResult", **one) for one in found])

    def events_of_asset(self, message):
        if message.name and message.uri:
            of = {"asset": {"name": message.name, "uri": message.uri}}
        else:
            of = {"name": message.name} if message.name else {"uri": message.uri}
        return self.events(of, message)

    def events_of_alias(self, message):
        return self.events({"alias": message.alias_name}, message)

    def events(self, of, message):
        found = self.supervisor.ask("assets/events", {"of": of})
        after, before = (getattr(message, name, None) for name in ("after", "before"))
        events = [event(one, at) for at, one in enumerate(found)]
        made = make("AssetEventsResult", asset_events=events).asset_events
        made = [one for one in made if (after is None or one.timestamp >= after) and (before is None or one.timestamp <= before)]
        if not getattr(message, "ascending", True):
            made.reverse()
        limit = getattr(message, "limit", None)
        result = make("AssetEventsResult", asset_events=[])
        result.asset_events.extend(made if limit is None else made[:limit])
        return result


def event(told, number):
    return {"id": told.get("id", number), "timestamp": told["timestamp"], "extra": told["extra"],
            "asset": {name: told[name] for name in ("name", "uri", "group")},
            "created_dagruns": [], "partition_key": told.get("partition_key"),
            **{name: told[name] for name in ("source_task_id", "source_dag_id", "source_run_id", "source_map_index")}}


def triggering(told: dict[str, Any]) -> dict[str, Any]:
    """An event that the task's own run was made for."""
    return {"asset": {"name": told["name"], "uri": told["uri"], "extra": {}}, "extra": told["extra"] or {},
            "timestamp": told["timestamp"], "partition_key": told.get("partition_key"),
            "source_aliases": [{"name": name} for name in told["aliases"]],
            **{name: told[name] for name in ("source_task_id", "source_dag_id", "source_run_id", "source_map_index")}}


def told(task: Any, events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What became of each outlet, for the scheduler."""
    said = {}
    found = []
    for one in events:
        key = one.get("dest_asset_key") or {}
        if one.get("source_alias_name"):
            asset = {"name": key["name"], "uri": key["uri"], "group": "asset", "extra": one.get("dest_asset_extra") or {}}
            found.append({"asset": asset, "alias": one["source_alias_name"], "extra": one.get("extra") or {}})
        else:
            told = {"extra": one.get("extra") or {}}
            if one.get("partition_key") is not None:
                told["partition_key"] = one["partition_key"]
            said.setdefault((key.get("name"), key.get("uri")), []).append(told)
    for outlet in task.outlets:
        if not is_asset(outlet):
            continue
        described = of_asset(outlet)
        if "alias" in described:
            continue
        named = described.get("asset", described)
        same = [told for (name, uri), told in said.items()
                if name == named.get("name", name) and uri == named.get("uri", uri)]
        # One for each partition that it says it has made.
        found += [{**described, **told} for told in (same[0] if same else [{"extra": {}}])]
    return found
