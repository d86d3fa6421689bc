"""Runs of partitions, as our scheduler knows them: from the timetables, mappers and windows of Airflow's own SDK, told apart by
their classes' names, which the SDK's and the core's have in common."""

from __future__ import annotations

from leoflow.authoring import timetables as ours
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
    """Of a class that is not Airflow's own: only its code knows what it does."""


class CronPartitions(ours.CronTriggerTimetable):
    kind = "cron_partition"

    def __init__(self, cron, timezone, run_immediately, run_offset, key_format):
        super().__init__(cron, timezone=timezone, run_immediately=run_immediately)
        self.run_offset = run_offset
        self.key_format = key_format

    def described(self):
        told = super().described()
        del told["interval"]
        return {**told, "run_offset": self.run_offset, "key_format": self.key_format}


class PartitionedAssets(ours.AssetTriggeredTimetable):
    kind = "partitioned_asset"
    summary = "Partitioned Asset"

    def __init__(self, timetable):
        super().__init__(None)
        self.timetable = timetable

    def described(self):
        named = {}
        for asset, mapper in self.timetable.partition_mapper_config.items():
            for name in names_of(asset):
                named[name] = of_mapper(mapper)
        told = {"kind": self.kind, "default": of_mapper(self.timetable.default_partition_mapper)}
        return {**told, "named": named} if named else told


class PartitionedAtRuntime(ours.NullTimetable):
    kind = "partitioned_at_runtime"
    summary = "PartitionedAtRuntime"
    description = "Never, partition key(s) set at runtime"

    def described(self):
        return {"kind": self.kind}


def names_of(asset: Any) -> list[str]:
    """Of an asset, a reference to one, or several of them: Airflow goes by the name of what it finds."""
    parts = getattr(asset, "objects", None)
    if parts is not None:
        return [name for part in parts for name in names_of(part)]
    return [asset.name] if hasattr(asset, "name") and type(asset).__name__ != "AssetAlias" else []


def is_airflows(one):
    return type(one).__module__.partition(".")[0] == "airflow"


def of_mapper(mapper: Any) -> dict[str, Any]:
    """Raises UnknownMapper."""
    told = described(mapper)
    most = mapper.max_downstream_keys
    return told if most is None else {**told, "max_downstream_keys": most}


def described(mapper):
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
    "FixedKeyMapper": lambda one: {"kind": "fixed_key", "key": one.downstream_key},
    "AllowedKeyMapper": lambda one: {"kind": "allowed_key", "keys": list(one.allowed_keys)},
    "ProductMapper": lambda one: {"kind": "product", "mappers": [of_mapper(part) for part in one.mappers],
                                  "delimiter": one.delimiter},
    "ChainMapper": lambda one: {"kind": "chain", "mappers": [of_mapper(part) for part in one.mappers]},
    "RollupMapper": lambda one: {"kind": "rollup", "upstream": of_mapper(one.upstream_mapper), "window": of_window(one.window),
                                 "wait": of_wait(one.wait_policy)},
    "FanOutMapper": lambda one: {"kind": "fan_out", "upstream": of_mapper(one.upstream_mapper),
                                 "window": of_window(one.window), "downstream": of_mapper(one.downstream_mapper)},
}


def of_window(window):
    name = type(window).__name__
    if not is_airflows(window) or name not in (*WINDOWS, "SegmentWindow"):
        raise UnknownMapper(name)
    if name == "SegmentWindow":
        return {"segments": sorted(window._segments)}
    return {"period": WINDOWS[name], "backward": getattr(window.direction, "value", window.direction) == "backward"}


def of_wait(policy):
    name = type(policy).__name__
    if name == "MinimumCount" and is_airflows(policy):
        return {"minimum": policy.n}
    if name != "WaitForAll" or not is_airflows(policy):
        raise UnknownMapper(name)
    return "all"
