"""Sensors: tasks that wait for a condition, in a process or, in mode `reschedule`, without a process.

<https://airflow.apache.org/docs/apache-airflow/stable/core-concepts/sensors.html>
"""

import functools
import time
from datetime import datetime, timedelta, timezone

from leoflow.authoring.operators.base_operator import BaseOperator
from leoflow.common.dates import utcnow
from leoflow.common.exceptions import (
    AirflowFailException,
    AirflowRescheduleException,
    AirflowSensorTimeout,
    AirflowSkipException,
    AirflowTaskTimeout,
)

MODES = ["poke", "reschedule"]
# Time added to a wait: Airflow's time sensors succeed only after their time, not exactly at it.
TICK_SECONDS = 0.001


class PokeReturnValue:
    """The outcome of a poke, and the value that the task returns once the condition is met."""

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
        # A deferrable sensor uses mode `reschedule`, in which it also waits without a process.
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
        """Returns the time at which the condition becomes true, or None if the sensor does not know it."""
        return None

    def known_wait(self):
        """Returns the condition in a form that the scheduler can check itself (a time, another run, or a file), or
        None."""
        return None

    def execute(self, context):
        ti = context["ti"]
        poke_number = 1
        # The timeout includes the time that the scheduler has waited already.
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
        """Returns the seconds until the next poke. A sensor that knows its due time pokes at that time at the latest,
        or only then if it is deferrable."""
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
        """Returns the seconds until the next poke, ignoring a due time."""
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
        """Computes how often the sensor has poked in `run_duration` seconds. A rescheduled sensor has no other way to
        know, because each poke is a new process."""
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
