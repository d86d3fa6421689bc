"""Timetables of Airflow's own SDK, as our scheduler knows them: told apart by their classes' names, which the SDK's and the
core's have in common."""

from __future__ import annotations

import datetime

from leoflow.authoring import timetables as ours
from leoflow.sdk import partitions

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def of(timetable: Any) -> ours.Timetable:
    """The same in our words. One of the user's own class is asked itself, by way of `ask`."""
    kind = type(timetable)
    if kind.__module__.partition(".")[0] != "airflow":
        return Custom(timetable)
    make = MAKERS.get(kind.__name__)
    return Custom(timetable) if make is None else make(timetable)


class Custom(ours.Timetable):
    def __init__(self, timetable):
        self.timetable = timetable
        self.description = getattr(timetable, "description", "") or ""

    @property
    def summary(self):
        return str(getattr(self.timetable, "summary", None) or type(self.timetable).__name__)

    def described(self):
        kind = type(self.timetable)
        return {"kind": "custom", "class": f"{kind.__module__}.{kind.__qualname__}"}


def value(timetable, name, otherwise=None):
    """The SDK's timetables have public names for what those of the core keep behind an underscore."""
    found = getattr(timetable, name, None)
    found = getattr(timetable, f"_{name}", None) if found is None else found
    return otherwise if found is None else found


def cron_trigger(timetable):
    return ours.CronTriggerTimetable(
        value(timetable, "expression"), timezone=value(timetable, "timezone", "UTC"),
        interval=value(timetable, "interval", datetime.timedelta()),
        run_immediately=value(timetable, "run_immediately", False),
    )


def several_crons(timetable):
    parts = [cron_trigger(one) for one in value(timetable, "timetables", [])]
    made = ours.MultipleCronTriggerTimetable(*[one.expression for one in parts], timezone=parts[0].timezone)
    made.parts = parts
    return made


def asset_or_time(timetable):
    return ours.AssetOrTimeSchedule(timetable=of(timetable.timetable), assets=[])


MAKERS = {
    "NullTimetable": lambda _: ours.NullTimetable(),
    "OnceTimetable": lambda _: ours.OnceTimetable(),
    "ContinuousTimetable": lambda _: ours.ContinuousTimetable(),
    "CronTriggerTimetable": cron_trigger,
    "MultipleCronTriggerTimetable": several_crons,
    "CronDataIntervalTimetable": lambda one: ours.CronDataIntervalTimetable(
        value(one, "expression"), timezone=value(one, "timezone", "UTC")),
    "DeltaTriggerTimetable": lambda one: ours.DeltaTriggerTimetable(
        value(one, "delta"), interval=value(one, "interval", datetime.timedelta())),
    "DeltaDataIntervalTimetable": lambda one: ours.DeltaDataIntervalTimetable(value(one, "delta")),
    "EventsTimetable": lambda one: ours.EventsTimetable(
        value(one, "event_dates"), bool(value(one, "restrict_to_events", False)), description=value(one, "description")),
    "CronPartitionTimetable": lambda one: partitions.CronPartitions(
        value(one, "expression"), value(one, "timezone", "UTC"), value(one, "run_immediately", False),
        value(one, "run_offset", 0), value(one, "key_format")),
    "PartitionedAssetTimetable": partitions.PartitionedAssets,
    "PartitionedAtRuntime": lambda _: partitions.PartitionedAtRuntime(),
    "AssetTriggeredTimetable": lambda _: ours.AssetTriggeredTimetable(None),
    "AssetOrTimeSchedule": asset_or_time,
}
