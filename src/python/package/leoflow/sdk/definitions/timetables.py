"""Converts timetables of Airflow's SDK to the scheduler's form. Classes are recognized by name, which is the same in
the SDK and in Airflow's core."""

from __future__ import annotations

import datetime

from leoflow.authoring.timetables import standard as ours
from leoflow.sdk.definitions import partitions

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


# Where Airflow's own timetables are.
OWN = ("airflow.timetables.", "airflow.sdk.")


class UnknownTimetable(Exception):
    """A timetable of Airflow's that this release does not know."""


def convert(timetable: Any) -> ours.Timetable:
    """Converts a timetable. For a custom timetable, the scheduler gets the run times through `entry/ask.py`. Raises
    UnknownTimetable."""
    kind = type(timetable)
    if kind.__module__.partition(".")[0] != "airflow":
        return Custom(timetable)
    make = MAKERS.get(kind.__name__)
    if make is None and kind.__module__.startswith(OWN):
        # Its run times alone may not be all that it means.
        raise UnknownTimetable(f"the schedule {kind.__name__}")
    return Custom(timetable) if make is None else make(timetable)


class Custom(ours.Timetable):
    def __init__(self, timetable):
        self.timetable = timetable
        self.description = getattr(timetable, "description", "") or ""

    @property
    def summary(self):
        return str(getattr(self.timetable, "summary", None) or type(self.timetable).__name__)

    def to_structure(self):
        kind = type(self.timetable)
        return {"kind": "custom", "class": f"{kind.__module__}.{kind.__qualname__}"}


def value(timetable, name, otherwise=None):
    """Returns an attribute, which is public in the SDK's timetables and private (`_name`) in those of Airflow's
    core."""
    attribute = getattr(timetable, name, None)
    attribute = getattr(timetable, f"_{name}", None) if attribute is None else attribute
    return otherwise if attribute is None else attribute


def cron_trigger(timetable):
    return ours.CronTriggerTimetable(
        value(timetable, "expression"), timezone=value(timetable, "timezone", "UTC"),
        interval=value(timetable, "interval", datetime.timedelta()),
        run_immediately=value(timetable, "run_immediately", False),
    )


def several_crons(timetable):
    parts = [cron_trigger(cron) for cron in value(timetable, "timetables", [])]
    converted = ours.MultipleCronTriggerTimetable(*[part.expression for part in parts], timezone=parts[0].timezone)
    converted.parts = parts
    return converted


def with_assets(timetable):
    # Imported here, because other timetables do not need it.
    from leoflow.authoring.timetables import assets

    return getattr(assets, type(timetable).__name__)(timetable=convert(timetable.timetable), assets=[])


MAKERS = {
    "NullTimetable": lambda _: ours.NullTimetable(),
    "OnceTimetable": lambda _: ours.OnceTimetable(),
    "ContinuousTimetable": lambda _: ours.ContinuousTimetable(),
    "CronTriggerTimetable": cron_trigger,
    "MultipleCronTriggerTimetable": several_crons,
    "CronDataIntervalTimetable": lambda timetable: ours.CronDataIntervalTimetable(
        value(timetable, "expression"), timezone=value(timetable, "timezone", "UTC")),
    "DeltaTriggerTimetable": lambda timetable: ours.DeltaTriggerTimetable(
        value(timetable, "delta"), interval=value(timetable, "interval", datetime.timedelta())),
    "DeltaDataIntervalTimetable": lambda timetable: ours.DeltaDataIntervalTimetable(value(timetable, "delta")),
    "EventsTimetable": lambda timetable: ours.EventsTimetable(
        value(timetable, "event_dates"), bool(value(timetable, "restrict_to_events", False)), description=value(timetable, "description")),
    "CronPartitionTimetable": lambda timetable: partitions.CronPartitions(
        value(timetable, "expression"), value(timetable, "timezone", "UTC"), value(timetable, "run_immediately", False),
        value(timetable, "run_offset", 0), value(timetable, "key_format")),
    "PartitionedAssetTimetable": partitions.PartitionedAssets,
    "PartitionedAtRuntime": lambda _: partitions.PartitionedAtRuntime(),
    "AssetTriggeredTimetable": lambda _: ours.AssetTriggeredTimetable(None),
    "AssetOrTimeSchedule": with_assets,
    "AssetAndTimeSchedule": with_assets,
}
