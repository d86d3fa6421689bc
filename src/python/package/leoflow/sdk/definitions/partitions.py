"""Converts the partition timetables, mappers and windows of Airflow's SDK to the scheduler's form. Classes are
recognized by name, which is the same in the SDK and in Airflow's core."""

from __future__ import annotations

from leoflow.authoring.timetables import standard as ours
from leoflow.common.dates import zone_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

PERIODS = {
    "StartOfHourMapper": "hour", "StartOfDayMapper": "day", "StartOfWeekMapper": "week", "StartOfMonthMapper": "month",
    "StartOfQuarterMapper": "quarter", "StartOfYearMapper": "year",
}
WINDOWS = {
    "HourWindow": "hour", "DayWindow": "day", "WeekWindow": "week", "MonthWindow": "month", "QuarterWindow": "quarter",
    "YearWindow": "year",
}


class UnknownMapper(Exception):
    """A custom mapper or window, which the scheduler cannot evaluate."""


class CronPartitions(ours.CronTriggerTimetable):
    kind = "cron_partition"

    def __init__(self, cron, timezone, run_immediately, run_offset, key_format):
        super().__init__(cron, timezone=timezone, run_immediately=run_immediately)
        self.run_offset = run_offset
        self.key_format = key_format

    def to_structure(self):
        fields = super().to_structure()
        del fields["interval"]
        return {**fields, "run_offset": self.run_offset, "key_format": self.key_format}


class PartitionedAssets(ours.AssetTriggeredTimetable):
    kind = "partitioned_asset"
    summary = "Partitioned Asset"

    def __init__(self, timetable):
        super().__init__(None)
        self.timetable = timetable

    def to_structure(self):
        named = {}
        for asset, mapper in self.timetable.partition_mapper_config.items():
            for name in names_of(asset):
                named[name] = mapper_structure(mapper)
        fields = {"kind": self.kind, "default": mapper_structure(self.timetable.default_partition_mapper)}
        return {**fields, "named": named} if named else fields


class PartitionedAtRuntime(ours.NullTimetable):
    kind = "partitioned_at_runtime"
    summary = "PartitionedAtRuntime"
    description = "Never, partition key(s) set at runtime"

    def to_structure(self):
        return {"kind": self.kind}


def names_of(asset: Any) -> list[str]:
    """Returns the names in an asset, a reference or a condition, because Airflow matches assets by name."""
    parts = getattr(asset, "objects", None)
    if parts is not None:
        return [name for part in parts for name in names_of(part)]
    return [asset.name] if hasattr(asset, "name") and type(asset).__name__ != "AssetAlias" else []


def is_airflows(value):
    return type(value).__module__.partition(".")[0] == "airflow"


def mapper_structure(mapper: Any) -> dict[str, Any]:
    """Returns the scheduler's form of a mapper. Raises UnknownMapper."""
    structure = structure_of(mapper)
    limit = mapper.max_downstream_keys
    return structure if limit is None else {**structure, "max_downstream_keys": limit}


def structure_of(mapper):
    name = type(mapper).__name__
    if not is_airflows(mapper):
        raise UnknownMapper(name)
    if name in PERIODS:
        return {"kind": "start_of", "period": PERIODS[name], "timezone": zone_name(mapper._timezone),
                "input_format": mapper.input_format, "output_format": mapper.output_format}
    make = MAKERS.get(name)
    if make is None:
        raise UnknownMapper(name)
    return make(mapper)


MAKERS = {
    "IdentityMapper": lambda _: {"kind": "identity"},
    "FixedKeyMapper": lambda mapper: {"kind": "fixed_key", "key": mapper.downstream_key},
    "AllowedKeyMapper": lambda mapper: {"kind": "allowed_key", "keys": list(mapper.allowed_keys)},
    "ProductMapper": lambda mapper: {
        "kind": "product", "mappers": [mapper_structure(part) for part in mapper.mappers], "delimiter": mapper.delimiter},
    "ChainMapper": lambda mapper: {"kind": "chain", "mappers": [mapper_structure(part) for part in mapper.mappers]},
    "RollupMapper": lambda mapper: {
        "kind": "rollup", "upstream": mapper_structure(mapper.upstream_mapper), "window": window_structure(mapper.window),
        "wait": wait_structure(mapper.wait_policy)},
    "FanOutMapper": lambda mapper: {
        "kind": "fan_out", "upstream": mapper_structure(mapper.upstream_mapper), "window": window_structure(mapper.window),
        "downstream": mapper_structure(mapper.downstream_mapper)},
}


def window_structure(window):
    name = type(window).__name__
    if not is_airflows(window) or name not in (*WINDOWS, "SegmentWindow"):
        raise UnknownMapper(name)
    if name == "SegmentWindow":
        return {"segments": sorted(window._segments)}
    return {"period": WINDOWS[name], "backward": getattr(window.direction, "value", window.direction) == "backward"}


def wait_structure(policy):
    name = type(policy).__name__
    if name == "MinimumCount" and is_airflows(policy):
        return {"minimum": policy.n}
    if name != "WaitForAll" or not is_airflows(policy):
        raise UnknownMapper(name)
    return "all"
