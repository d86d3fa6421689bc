"""Answers the SDK's messages about assets, and converts the asset events that a task reports."""

from __future__ import annotations

import re

from leoflow.common.client import ServerError
from leoflow.sdk.messages.models import make
from leoflow.sdk.structure import asset_structure, is_asset

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
            "GetAssetsByAlias": self.assets_of_alias,
            "GetAssetEventByAsset": self.events_of_asset, "GetAssetEventByAssetAlias": self.events_of_alias,
            "ValidateInletsAndOutlets": self.inactive_assets,
        }

    def asset(self, query):
        try:
            return make("AssetResult", **self.supervisor.ask("assets/one", query))
        except ServerError as error:
            if error.status == 404:
                return self.supervisor.error("ASSET_NOT_FOUND", **query)
            raise

    def inactive_assets(self, _message):
        try:
            rows = self.supervisor.ask("assets/inactive")
        except ServerError as error:
            # The server is of an earlier release after a rollback.
            if error.status != 404:
                raise
            rows = []
        return make("InactiveAssetsResult", inactive_assets=[{**row, "type": "Asset"} for row in rows])

    def assets_of_alias(self, message):
        rows = self.supervisor.ask("assets/of-alias", {"alias": message.alias_name})
        return make("AssetsByAliasResult", assets=[make("AssetResult", **row) for row in rows])

    def events_of_asset(self, message):
        if message.name and message.uri:
            query = {"asset": {"name": message.name, "uri": message.uri}}
        else:
            query = {"name": message.name} if message.name else {"uri": message.uri}
        return self.events(query, message)

    def events_of_alias(self, message):
        return self.events({"alias": message.alias_name}, message)

    def events(self, query, message):
        rows = self.supervisor.ask("assets/events", {"of": query})
        after, before = (getattr(message, name, None) for name in ("after", "before"))
        events = [event(row, number) for number, row in enumerate(rows)]
        selected = make("AssetEventsResult", asset_events=events).asset_events
        selected = [row for row in selected if (after is None or row.timestamp >= after) and (before is None or row.timestamp <= before)]
        selected = [row for row in selected if fits(row, message)]
        if not getattr(message, "ascending", True):
            selected.reverse()
        limit = getattr(message, "limit", None)
        result = make("AssetEventsResult", asset_events=[])
        result.asset_events.extend(selected if limit is None else selected[:limit])
        return result


def fits(event, message):
    """True if an event fits the filters of Airflow from 3.4 on: its partition key, and texts in its `extra`."""
    key, pattern, extra = (getattr(message, name, None) for name in ("partition_key", "partition_key_regexp_pattern", "extra"))
    return ((key is None or event.partition_key == key)
            and (pattern is None or event.partition_key is not None and re.search(pattern, event.partition_key) is not None)
            and all(event.extra.get(name) == value for name, value in (extra or {}).items()))


def event(row, number):
    return {"id": row.get("id", number), "timestamp": row["timestamp"], "extra": row["extra"],
            "asset": {name: row[name] for name in ("name", "uri", "group")},
            "created_dagruns": [], "partition_key": row.get("partition_key"),
            **{name: row[name] for name in ("source_task_id", "source_dag_id", "source_run_id", "source_map_index")}}


def triggering(row: dict[str, Any]) -> dict[str, Any]:
    """Converts a stored event that triggered the task's run to the SDK's form."""
    return {"asset": {"name": row["name"], "uri": row["uri"], "extra": {}}, "extra": row["extra"] or {},
            "timestamp": row["timestamp"], "partition_key": row.get("partition_key"),
            "source_aliases": [{"name": name} for name in row["aliases"]],
            **{name: row[name] for name in ("source_task_id", "source_dag_id", "source_run_id", "source_map_index")}}


def outlet_events(task: Any, events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns the events of all outlets in the scheduler's form. `events` are those that the task reported."""
    by_asset = {}
    converted = []
    for reported in events:
        key = reported.get("dest_asset_key") or {}
        if reported.get("source_alias_name"):
            asset = {"name": key["name"], "uri": key["uri"], "group": "asset", "extra": reported.get("dest_asset_extra") or {}}
            converted.append({"asset": asset, "alias": reported["source_alias_name"], "extra": reported.get("extra") or {}})
        else:
            event = {"extra": reported.get("extra") or {}}
            if reported.get("partition_key") is not None:
                event["partition_key"] = reported["partition_key"]
            by_asset.setdefault((key.get("name"), key.get("uri")), []).append(event)
    for outlet in task.outlets:
        if not is_asset(outlet):
            continue
        structure = asset_structure(outlet)
        if "alias" in structure:
            continue
        named = structure.get("asset", structure)
        own_events = [events_of_asset for (name, uri), events_of_asset in by_asset.items()
                      if name == named.get("name", name) and uri == named.get("uri", uri)]
        # One event per partition that the task has produced.
        converted += [{**structure, **event} for event in (own_events[0] if own_events else [{"extra": {}}])]
    return converted
