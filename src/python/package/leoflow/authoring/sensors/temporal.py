"""Sensors that wait for a time or a day of the week."""

from datetime import datetime, timedelta, timezone

from leoflow.authoring.operators.branching import WeekDay, reference_time
from leoflow.authoring.sensors.base import BaseSensorOperator
from leoflow.common.dates import aware, task_datetime, utcnow, zone_name
from leoflow.common.exceptions import Unsupported


class MomentSensor(BaseSensorOperator):
    """Waits until `due` has passed."""

    def poke(self, context):
        return utcnow() > self.due(context)


class TimeSensor(MomentSensor):
    def __init__(self, *, target_time, end_from_trigger=False, **others):
        super().__init__(**others)
        self.target_time = target_time
        zone = self.dag.timezone if self.dag is not None else timezone.utc
        today = datetime.now(zone).date()
        self.target_datetime = task_datetime(
            datetime.combine(today, target_time, tzinfo=target_time.tzinfo or zone).astimezone(timezone.utc))

    def known_wait(self):
        zone = self.target_time.tzinfo or (self.dag.timezone if self.dag is not None else timezone.utc)
        try:
            return {"kind": "time", "time": self.target_time.replace(tzinfo=None).isoformat(), "zone": zone_name(zone)}
        except Unsupported:
            return None

    def due(self, context):
        return self.target_datetime


class DateTimeSensor(MomentSensor):
    template_fields = ("target_time",)

    def __init__(self, *, target_time, end_from_trigger=False, **others):
        super().__init__(**others)
        if not isinstance(target_time, (str, datetime)):
            raise TypeError(f"Expected str or datetime.datetime type for target_time. Got {type(target_time)}")
        self.target_time = target_time

    def known_wait(self):
        try:
            due = self.due(None)
        except ValueError:
            # The text is a template, or an invalid time, which the task's process reports.
            return None
        # The first and last years of the calendar are out of range in some time zones.
        return {"kind": "moment", "at": due.isoformat()} if 1 < due.year < 9999 else None

    def due(self, context):
        return aware("target_time", self.target_time)


class TimeDeltaSensor(MomentSensor):
    template_fields = ("delta",)

    def __init__(self, *, delta, end_from_trigger=False, **others):
        super().__init__(**others)
        self.delta = delta

    def known_wait(self):
        if not isinstance(self.delta, timedelta):
            return None
        return {"kind": "delta", "seconds": self.delta.total_seconds()}

    def due(self, context):
        run = context["dag_run"]
        # A rendered template is a text with a number of minutes.
        delta = self.delta if isinstance(self.delta, timedelta) else timedelta(minutes=int(self.delta))
        return (run.data_interval_end or run.run_after) + delta


class DayOfWeekSensor(BaseSensorOperator):
    def __init__(self, *, week_day, use_task_logical_date=False, **others):
        super().__init__(**others)
        self.week_day = week_day
        self.use_task_logical_date = use_task_logical_date
        self._week_days = WeekDay.validate_week_day(week_day)

    def known_wait(self):
        if self.use_task_logical_date:
            return None
        return {"kind": "weekday", "days": sorted(int(day) for day in self._week_days)}

    def poke(self, context):
        return reference_time(context, self.use_task_logical_date, timezone.utc).isoweekday() in self._week_days
