"""Sensors: tasks that wait for a condition, as a process or, in mode `reschedule`, without one.

<https://airflow.apache.org/docs/apache-airflow/stable/core-concepts/sensors.html>
"""

import functools
import time
from datetime import datetime, timedelta, timezone

from leoflow.authoring.operators.base_operator import BaseOperator
from leoflow.authoring.operators.branching import WeekDay, reference_time
from leoflow.authoring.operators.standard import AvailableArguments, keyword_arguments
from leoflow.common.dates import task_datetime, utcnow, zone_name
from leoflow.common.exceptions import (
    AirflowFailException,
    AirflowRescheduleException,
    AirflowSensorTimeout,
    AirflowSkipException,
    AirflowTaskTimeout,
    Unsupported,
)

MODES = ["poke", "reschedule"]
# Seconds. Airflow's time sensors succeed only after their time, not at it.
TICK_SECONDS = 0.001


class PokeReturnValue:
    """The outcome of a poke, and the value that the task then returns."""

    def __init__(self, is_done, xcom_value=None):
        self.is_done = is_done
        self.xcom_value = xcom_value

    def __bool__(self):
        return bool(self.is_done)


def duration(name, value):
    """Converts a timedelta or a number to seconds."""
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value < 0:
        raise ValueError(f"Operator arg `{name}` must be timedelta object or a non-negative number")
    return float(value)


class BaseSensorOperator(BaseOperator):
    ui_color = "#e6f1f2"
    is_sensor = True

    def __init__(self, *, poke_interval=60, timeout=7 * 24 * 3600, soft_fail=False, mode="poke",
                 exponential_backoff=False, max_wait=None, silent_fail=False, never_fail=False, deferrable=False,
                 start_from_trigger=False, trigger_kwargs=None, **others):
        super().__init__(**others)
        self.poke_interval = duration("poke_interval", poke_interval)
        self.timeout = duration("timeout", 7 * 24 * 3600 if timeout is None else timeout)
        self.soft_fail = soft_fail
        if mode not in MODES:
            raise ValueError(f"The mode must be one of {MODES},'{self.dag_id}.{self.task_id}'; received '{mode}'.")
        self.deferrable = deferrable
        # Leoflow has no triggerer for these: a deferrable sensor is rescheduled, which needs no process either.
        self.mode = "reschedule" if deferrable else mode
        self.exponential_backoff = exponential_backoff
        self.max_wait = None if max_wait is None else duration("max_wait", max_wait)
        self.silent_fail = silent_fail
        self.never_fail = never_fail
        if soft_fail and never_fail:
            raise ValueError("soft_fail and never_fail are mutually exclusive, you can not provide both.")

    @property
    def reschedule(self):
        return self.mode == "reschedule"

    def poke(self, context):
        raise NotImplementedError

    def due(self, context):
        """Returns the time at which the condition becomes true, or None when the sensor cannot know it."""
        return None

    def known_wait(self):
        """Returns the condition in a form that the scheduler can check without a process (a time, another run, or a
        file), or None."""
        return None

    def execute(self, context):
        ti = context["ti"]
        poke_number = 1
        # The time that the scheduler has waited already counts.
        started_before = self.reschedule or ti.has_waited()
        started_at = ti.first_start() if started_before else datetime.now(timezone.utc)
        process_start = time.monotonic()

        def elapsed():
            return (datetime.now(timezone.utc) - started_at).total_seconds() if started_before else time.monotonic() - process_start

        if self.reschedule and self.exponential_backoff:
            poke_number = self._pokes_in(elapsed(), started_at)
        while True:
            outcome = self._poke_once(context)
            if outcome:
                return outcome.xcom_value if isinstance(outcome, PokeReturnValue) else None
            run_duration = elapsed()
            if run_duration > self.timeout:
                message = (
                    f"Sensor has timed out; run duration of {run_duration} seconds exceeds the specified timeout of {self.timeout}."
                )
                raise (AirflowSkipException if self.soft_fail else AirflowSensorTimeout)(message)
            wait = self._wait_for_due(context, self._interval(started_at, run_duration, poke_number), run_duration)
            if self.reschedule:
                raise AirflowRescheduleException(datetime.now(timezone.utc) + timedelta(seconds=wait))
            time.sleep(wait)
            poke_number += 1

    def _wait_for_due(self, context, interval, run_duration):
        """Returns the seconds until the next poke. A sensor that knows its due time pokes at that time at the latest; a
        deferrable one does not poke earlier."""
        due = self.due(context)
        if due is None:
            return interval
        left = max((due - utcnow()).total_seconds(), 0.0) + TICK_SECONDS
        return min(left, max(self.timeout - run_duration, 0.0) + TICK_SECONDS) if self.deferrable else min(left, interval)

    def _poke_once(self, context):
        try:
            return self.poke(context)
        except (AirflowSensorTimeout, AirflowTaskTimeout, AirflowFailException) as error:
            if self.soft_fail or self.never_fail:
                raise AirflowSkipException("Skipping due to soft_fail is set to True.") from error
            raise
        except AirflowSkipException:
            raise
        except Exception as error:
            if self.silent_fail:
                self.log.exception("Sensor poke failed")
                return False
            if self.never_fail:
                raise AirflowSkipException("Skipping due to never_fail is set to True.") from error
            raise

    def _interval(self, started_at, run_duration, poke_number):
        """Returns the seconds until the next poke, without regard to a due time."""
        if not self.exponential_backoff:
            return self.poke_interval
        import hashlib

        # As in Airflow: a random but repeatable wait between once and twice the minimum.
        minimum = max(int(self.poke_interval * 2 ** (poke_number - 2)), 1)
        seed = f"{self.dag_id}#{self.task_id}#{started_at}#{poke_number}"
        wait = minimum + int(hashlib.sha1(seed.encode()).hexdigest(), 16) % minimum
        wait = min(self.timeout - int(run_duration), wait)
        return max(wait if self.max_wait is None else min(self.max_wait, wait), 0)

    def _pokes_in(self, run_duration, started_at):
        """Computes how often the sensor has poked in `run_duration` seconds, because each poke of a rescheduled sensor is a
        process of its own."""
        poke_number, waited = 1, 0.0
        while True:
            waited += max(self._interval(started_at, waited, poke_number), 1)
            if waited > run_duration:
                return poke_number
            poke_number += 1


def poke_mode_only(cls):
    """Class decorator that forbids mode `reschedule`."""
    init = cls.__init__

    @functools.wraps(init)
    def checked(self, **arguments):
        if arguments.get("mode", "poke") != "poke":
            raise ValueError(f"Cannot set mode to '{arguments['mode']}'. Only 'poke' is acceptable")
        init(self, **arguments)

    cls.__init__ = checked
    return cls


class PythonSensor(BaseSensorOperator):
    template_fields = ("templates_dict", "op_args", "op_kwargs")

    def __init__(self, *, python_callable, op_args=None, op_kwargs=None, templates_dict=None, **others):
        super().__init__(**others)
        self.python_callable = python_callable
        self.op_args = op_args or []
        self.op_kwargs = op_kwargs or {}
        self.templates_dict = templates_dict

    def poke(self, context):
        if self.templates_dict:
            context["templates_dict"] = self.templates_dict
        arguments = keyword_arguments(self.python_callable, self.op_args, AvailableArguments(context, self.op_kwargs), self.op_kwargs)
        outcome = self.python_callable(*self.op_args, **arguments)
        return outcome if isinstance(outcome, PokeReturnValue) else bool(outcome)


class BashSensor(BaseSensorOperator):
    template_fields = ("bash_command", "env")

    def __init__(self, *, bash_command, env=None, output_encoding="utf-8", retry_exit_code=None, **others):
        super().__init__(**others)
        self.bash_command = bash_command
        self.env = env
        self.output_encoding = output_encoding
        self.retry_exit_code = retry_exit_code

    def poke(self, context):
        import os
        import shutil
        import subprocess

        code = subprocess.run(
            [shutil.which("bash") or "bash", "-c", self.bash_command],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.STDOUT,
            env={**(os.environ if self.env is None else self.env), **context["ti"].airflow_environment()},
        ).returncode
        if code == 0:
            return True
        if self.retry_exit_code is None or code == self.retry_exit_code:
            return False
        raise AirflowFailException(f"Command exited with return code {code}")


class FileSensor(BaseSensorOperator):
    template_fields = ("filepath", "fs_conn_id")

    def __init__(self, *, filepath, fs_conn_id="fs_default", recursive=False, **others):
        super().__init__(**others)
        self.filepath = filepath
        self.fs_conn_id = fs_conn_id
        self.recursive = recursive

    def known_wait(self):
        path = self.filepath
        is_plain = isinstance(path, str) and path.startswith("/") and not any(character in path for character in "*?[{\0")
        # An absolute path ignores the connection's path, but any other connection must exist.
        if not is_plain or self.fs_conn_id != "fs_default" or self.exponential_backoff:
            return None
        return {"kind": "file", "path": path, "poke_interval": self.poke_interval}

    def poke(self, context):
        import glob
        import os

        # Only a poke needs it; the scheduler checks most files itself.
        from leoflow.authoring.hooks import FSHook

        path = os.path.join(FSHook(self.fs_conn_id).get_path(), self.filepath)
        for match in glob.glob(path, recursive=self.recursive):
            if os.path.isfile(match) or any(files for _, _, files in os.walk(match)):
                return True
        return False


class TimeSensor(BaseSensorOperator):
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

    def poke(self, context):
        return utcnow() > self.due(context)


class DateTimeSensor(BaseSensorOperator):
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
            # A template, or an invalid time, which the task process reports.
            return None
        # The first and last years of the calendar are out of range in some time zones.
        return {"kind": "moment", "at": due.isoformat()} if 1 < due.year < 9999 else None

    def due(self, context):
        target = self.target_time
        if isinstance(target, str):
            target = datetime.fromisoformat(target.replace("Z", "+00:00"))
        return target if target.tzinfo else target.replace(tzinfo=timezone.utc)

    def poke(self, context):
        return utcnow() > self.due(context)


class TimeDeltaSensor(BaseSensorOperator):
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
        # A rendered template is a text; it is a number of minutes.
        delta = self.delta if isinstance(self.delta, timedelta) else timedelta(minutes=int(self.delta))
        return (run.data_interval_end or run.run_after) + delta

    def poke(self, context):
        return utcnow() > self.due(context)


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
