"""Timetables. The scheduler, in Rust, computes the run times of the standard timetables from their stored form, and
calls custom timetables through `entry/ask.py`.

<https://airflow.apache.org/docs/apache-airflow/stable/authoring-and-scheduling/timetable.html>
"""

from __future__ import annotations

import datetime as _datetime
from collections import namedtuple
from datetime import datetime, timedelta

from leoflow.common.dates import aware, stamp, zone_name
from leoflow.common.exceptions import AirflowTimetableInvalid, Unsupported
from leoflow.common.reports import user_line

PRESETS = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@quarterly": "0 0 1 */3 *",
    "@yearly": "0 0 1 1 *",
}
# Presets of croniter, Airflow's cron library. Airflow displays them as written.
LIBRARY_PRESETS = {"@annually": "0 0 1 1 *", "@midnight": "0 0 * * *"}


class DataInterval(namedtuple("DataInterval", "start end")):
    __slots__ = ()

    @classmethod
    def exact(cls, at):
        return cls(at, at)


TimeRestriction = namedtuple("TimeRestriction", "earliest latest catchup")


class DagRunInfo(namedtuple("DagRunInfo", "run_after data_interval partition_date partition_key", defaults=(None, None))):
    __slots__ = ()

    @classmethod
    def exact(cls, at):
        return cls(run_after=at, data_interval=DataInterval.exact(at))

    @classmethod
    def interval(cls, start, end):
        return cls(run_after=end, data_interval=DataInterval(start, end))

    @property
    def logical_date(self):
        return self.data_interval.start if self.data_interval is not None else None


class Timetable:
    """The base class of custom timetables."""

    description = ""
    periodic = True
    can_be_scheduled = True
    active_runs_limit = None
    asset_condition = None
    run_ordering = ("data_interval_end", "logical_date")

    @property
    def summary(self):
        return type(self).__name__

    def validate(self):
        """Raises AirflowTimetableInvalid for an invalid timetable."""

    def serialize(self):
        return {}

    @classmethod
    def deserialize(cls, data):
        return cls()

    def infer_manual_data_interval(self, *, run_after):
        raise NotImplementedError

    def next_dagrun_info(self, *, last_automated_data_interval, restriction):
        raise NotImplementedError

    def generate_run_id(self, *, run_type, run_after, data_interval, **extra):
        return f"{getattr(run_type, 'value', run_type)}__{run_after.isoformat()}"

    def to_structure(self):
        """Returns the JSON-compatible form that the scheduler stores."""
        return {"kind": "custom", "class": f"{type(self).__module__}.{type(self).__qualname__}"}


class BuiltIn(Timetable):
    """A standard timetable, whose run times the scheduler computes."""

    kind = None

    def __init_subclass__(cls, **others):
        super().__init_subclass__(**others)
        if not cls.__module__.startswith("leoflow"):
            raise Unsupported(f"a subclass of {cls.__mro__[1].__name__} (extend airflow.timetables.base.Timetable)")

    def to_structure(self):
        return {"kind": self.kind}


class NullTimetable(BuiltIn):
    kind, periodic, can_be_scheduled = "null", False, False
    summary = "None"
    description = "Never, external triggers only"


class OnceTimetable(BuiltIn):
    kind, periodic = "once", False
    summary = "@once"
    description = "Once, as soon as possible"


class ContinuousTimetable(BuiltIn):
    kind, periodic, active_runs_limit = "continuous", False, 1
    summary = "@continuous"
    description = "As frequently as possible, but only one run at a time."


def zone_of(timezone):
    if isinstance(timezone, str):
        return timezone
    return zone_name(timezone)


def delta_structure(name, value):
    if isinstance(value, timedelta):
        return value.total_seconds()
    if is_relativedelta(value):
        return relativedelta_structure(value)
    raise TypeError(f"{name} must be a timedelta, not {type(value).__name__}")


def is_relativedelta(value: object) -> bool:
    return type(value).__name__ == "relativedelta"


def relativedelta_structure(value):
    """Converts a relativedelta to months, which have no fixed length, and seconds."""
    names = ("years", "months", "days", "hours", "minutes", "seconds", "microseconds")
    absolute = ("year", "month", "day", "hour", "minute", "second", "microsecond", "weekday", "leapdays")
    if any(getattr(value, name, None) for name in absolute):
        raise Unsupported(f"the schedule {value!r}")
    months = int(value.years) * 12 + int(value.months)
    below_months = {name: getattr(value, name) for name in names[2:]}
    return {"months": months, "seconds": timedelta(**below_months).total_seconds()}


def check_cron(expression):
    if not isinstance(expression, str):
        raise AirflowTimetableInvalid(f"a cron expression must be a string, not {type(expression).__name__}")
    expression = PRESETS.get(expression.strip(), expression)
    return LIBRARY_PRESETS.get(expression.strip().lower(), expression)


class Cron(BuiltIn):
    def __init__(self, cron, timezone):
        self.expression = check_cron(cron)
        self.displayed = cron.strip() if cron.strip().lower() in LIBRARY_PRESETS else self.expression
        self.timezone = zone_of(timezone)
        self.place = user_line()

    @property
    def summary(self):
        return self.displayed

    def to_structure(self):
        return {"kind": self.kind, "expression": self.expression, "timezone": self.timezone}


class CronTriggerTimetable(Cron):
    kind = "cron_trigger"

    def __init__(self, cron, *, timezone="UTC", interval=timedelta(), run_immediately=False):
        super().__init__(cron, timezone)
        self.interval = interval
        self.run_immediately = run_immediately

    def to_structure(self):
        return {**super().to_structure(), "interval": delta_structure("interval", self.interval),
                "run_immediately": run_immediately_value(self.run_immediately)}


def run_immediately_value(value):
    return value.total_seconds() if isinstance(value, timedelta) else bool(value)


class MultipleCronTriggerTimetable(BuiltIn):
    kind = "multiple_cron_trigger"

    def __init__(self, *crons, timezone="UTC", interval=timedelta(), run_immediately=False):
        if not crons:
            raise ValueError("cron expression required")
        self.parts = [CronTriggerTimetable(cron, timezone=timezone, interval=interval, run_immediately=run_immediately)
                      for cron in crons]

    @property
    def summary(self):
        return ", ".join(part.summary for part in self.parts)

    def to_structure(self):
        return {"kind": self.kind, "parts": [part.to_structure() for part in self.parts]}


class CronDataIntervalTimetable(Cron):
    kind = "cron_interval"

    def __init__(self, cron, timezone="UTC"):
        super().__init__(cron, timezone)


class Delta(BuiltIn):
    def __init__(self, delta):
        if not isinstance(delta, timedelta) and not is_relativedelta(delta):
            raise TypeError(f"a schedule of type {type(delta).__name__}")
        self.delta = delta

    @property
    def summary(self):
        return str(self.delta)

    def validate(self):
        now = datetime.now(_datetime.timezone.utc)
        if (now + self.delta) <= now:
            raise AirflowTimetableInvalid(f"schedule interval must be positive, not {self.delta!r}")

    def to_structure(self):
        return {"kind": self.kind, "delta": delta_structure("delta", self.delta)}


class DeltaTriggerTimetable(Delta):
    kind = "delta_trigger"

    def __init__(self, delta, *, interval=timedelta()):
        super().__init__(delta)
        self.interval = interval

    def to_structure(self):
        return {**super().to_structure(), "interval": delta_structure("interval", self.interval)}


class DeltaDataIntervalTimetable(Delta):
    kind = "delta_interval"


class EventsTimetable(BuiltIn):
    kind = "events"

    def __init__(self, event_dates, restrict_to_events=False, presorted=False, description=None):
        dates = [aware("event_dates", date) for date in event_dates]
        self.event_dates = dates if presorted else sorted(dates)
        self.restrict_to_events = restrict_to_events
        count = len(self.event_dates)
        default = f"{count} events between {self.event_dates[0]} and {self.event_dates[-1]}" if count else "No events"
        self.description = description or default
        self._summary = description or f"{count} events"

    @property
    def summary(self):
        return self._summary

    def to_structure(self):
        return {"kind": self.kind, "dates": [stamp(date) for date in self.event_dates],
                "restrict_to_events": bool(self.restrict_to_events)}


class AssetTriggeredTimetable(BuiltIn):
    kind, periodic, can_be_scheduled = "asset", False, False
    summary = "Asset"
    description = "Triggered by assets"

    def __init__(self, assets):
        self.asset_condition = assets
