"""Triggers, which wait for a condition on behalf of deferred tasks. All triggers of a project run in one event loop;
after a restart they are created again from the result of `serialize()`.

<https://airflow.apache.org/docs/apache-airflow/stable/authoring-and-scheduling/deferring.html>
"""

from __future__ import annotations

import asyncio
import datetime
import glob
import logging
import os
from typing import NamedTuple

from leoflow.authoring.loggers import qualified_name
from leoflow.common.dates import moment as read
from leoflow.common.dates import task_datetime
from leoflow.common.leoflow_server import client

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from typing import Any


class StartTriggerArgs(NamedTuple):
    """The trigger with which a task with `start_from_trigger` starts."""

    trigger_cls: str
    next_method: str
    trigger_kwargs: dict[str, Any] | None = None
    next_kwargs: dict[str, Any] | None = None
    timeout: datetime.timedelta | None = None

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Returns the stored form of the trigger without creating it."""
        return self.trigger_cls, self.trigger_kwargs or {}


class TriggerEvent:
    """The result of a trigger: the task resumes with the payload as `event`."""

    task_instance_state = None

    def __init__(self, payload: Any):
        self.payload = payload

    def __repr__(self):
        return f"TriggerEvent<{self.payload!r}>"

    def __eq__(self, other):
        return isinstance(other, TriggerEvent) and other.payload == self.payload

    __hash__ = None


class BaseTaskEndEvent(TriggerEvent):
    """An event that ends the task instead of resuming it."""

    def __init__(self, *, xcoms: dict[str, Any] | None = None):
        super().__init__(payload=self.task_instance_state)
        self.xcoms = xcoms


class TaskSuccessEvent(BaseTaskEndEvent):
    task_instance_state = "success"


class TaskFailedEvent(BaseTaskEndEvent):
    task_instance_state = "failed"


class TaskSkippedEvent(BaseTaskEndEvent):
    task_instance_state = "skipped"


class BaseTrigger:
    def __init__(self, **_):
        self.task_instance = None
        self.trigger_id = None

    @property
    def log(self) -> logging.Logger:
        return logging.getLogger(qualified_name(type(self)))

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Returns the class path and the arguments from which the trigger is created again."""
        raise NotImplementedError("Triggers must implement serialize()")

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Yields an event when the condition is met. Must tolerate a restart at any time."""
        raise NotImplementedError("Triggers must implement run()")
        yield

    async def cleanup(self) -> None:
        """Called when the trigger is no longer needed."""

    async def on_kill(self) -> None:
        """Called when a user clears, marks or deletes the task that waits for the trigger."""

    def __repr__(self):
        classpath, kwargs = self.serialize()
        arguments = ", ".join(f"{name}={value}" for name, value in kwargs.items())
        return f"<{classpath} {arguments}>"


class BaseEventTrigger(BaseTrigger):
    """A trigger that may also watch an asset."""


# --- standard triggers

STANDARD = "airflow.providers.standard.triggers"
UTC = datetime.timezone.utc


class DateTimeTrigger(BaseTrigger):
    """Fires at a time."""

    def __init__(self, moment=None, *, target_time=None, end_from_trigger=False):
        super().__init__()
        if (moment is None) == (target_time is None):
            raise TypeError("DateTimeTrigger requires exactly one of 'moment' or 'target_time'")
        moment = target_time if moment is None else moment
        if isinstance(moment, str):
            moment = read(moment)
            moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        if not isinstance(moment, datetime.datetime):
            raise TypeError(f"Expected datetime.datetime type for moment. Got {type(moment)}")
        if moment.tzinfo is None:
            raise ValueError("You cannot pass naive datetimes")
        self.moment = task_datetime(moment.astimezone(UTC))
        self.end_from_trigger = end_from_trigger

    def serialize(self):
        return f"{STANDARD}.temporal.DateTimeTrigger", {"moment": self.moment, "end_from_trigger": self.end_from_trigger}

    async def run(self):
        self.log.info("waiting until %s", self.moment)
        # Sleeps at most a minute at once, because the system clock may change meanwhile.
        while (left := (self.moment - datetime.datetime.now(UTC)).total_seconds()) > 0:
            await asyncio.sleep(min(left, 60))
        yield TaskSuccessEvent() if self.end_from_trigger else TriggerEvent(self.moment)


class TimeDeltaTrigger(DateTimeTrigger):
    """Fires after a delay."""

    def __init__(self, delta, *, end_from_trigger=False):
        super().__init__(datetime.datetime.now(UTC) + delta, end_from_trigger=end_from_trigger)


class FileTrigger(BaseTrigger):
    """Fires when a file exists, or a folder that contains one; the path may be a glob pattern."""

    def __init__(self, filepath, recursive=False, poke_interval=5.0, **_):
        super().__init__()
        self.filepath = filepath
        self.recursive = recursive
        self.poke_interval = poke_interval

    def serialize(self):
        kwargs = {"filepath": self.filepath, "recursive": self.recursive, "poke_interval": self.poke_interval}
        return f"{STANDARD}.file.FileTrigger", kwargs

    def find(self):
        for path in glob.glob(str(self.filepath), recursive=self.recursive):
            if os.path.isfile(path) or any(files for _, _, files in os.walk(path)):
                return path
        return None

    async def run(self):
        while (path := await asyncio.to_thread(self.find)) is None:
            await asyncio.sleep(self.poke_interval)
        self.log.info("Found %s", path)
        yield TriggerEvent(True)


class FileDeleteTrigger(BaseEventTrigger):
    """Fires when the file exists, and deletes it."""

    def __init__(self, filepath, poke_interval=5.0, **_):
        super().__init__()
        self.filepath = filepath
        self.poke_interval = poke_interval

    def serialize(self):
        return f"{STANDARD}.file.FileDeleteTrigger", {"filepath": self.filepath, "poke_interval": self.poke_interval}

    async def run(self):
        while not await asyncio.to_thread(os.path.isfile, self.filepath):
            await asyncio.sleep(self.poke_interval)
        await asyncio.to_thread(os.unlink, self.filepath)
        self.log.info("Found and deleted %s", self.filepath)
        yield TriggerEvent(True)


class DagStateTrigger(BaseTrigger):
    """Fires when all of these runs of a DAG have one of the states."""

    def __init__(self, dag_id, states, run_ids=None, poll_interval=5.0):
        super().__init__()
        self.dag_id = dag_id
        self.states = [str(state) for state in states]
        self.run_ids = run_ids
        self.poll_interval = poll_interval

    def serialize(self):
        kwargs = {"dag_id": self.dag_id, "states": self.states, "run_ids": self.run_ids, "poll_interval": self.poll_interval}
        return f"{STANDARD}.external_task.DagStateTrigger", kwargs

    def find(self):
        """Returns the state of each run."""
        def state(run_id):
            return client().request("POST", "/local/triggers/runs/state", {"dag_id": self.dag_id, "run_id": run_id})["state"]

        return {run_id: state(run_id) for run_id in self.run_ids or ()}

    async def run(self):
        while True:
            states = await asyncio.to_thread(self.find)
            if all(state in self.states for state in states.values()):
                break
            await asyncio.sleep(self.poll_interval)
        classpath, kwargs = self.serialize()
        yield TriggerEvent((classpath, {**kwargs, **states}))
