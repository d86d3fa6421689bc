"""Triggers: what a deferred task waits for without a process of its own. They run in one event loop for a project, and are made
anew from what `serialize` says after a restart.

<https://airflow.apache.org/docs/apache-airflow/stable/authoring-and-scheduling/deferring.html>
"""

from __future__ import annotations

import asyncio
import datetime
import glob
import logging
import os

from leoflow.authoring.loggers import name_of
from leoflow.common.dates import moment as read
from leoflow.common.dates import of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from typing import Any


class TriggerEvent:
    """What a trigger has to say: the task goes on with its payload as `event`."""

    task_instance_state = None

    def __init__(self, payload: Any):
        self.payload = payload

    def __repr__(self):
        return f"TriggerEvent<{self.payload!r}>"

    def __eq__(self, other):
        return isinstance(other, TriggerEvent) and other.payload == self.payload

    __hash__ = None


class BaseTaskEndEvent(TriggerEvent):
    """The task ends with it, and does not go on."""

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
        return logging.getLogger(name_of(type(self)))

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """The class with its module, and the arguments that it is made with again."""
        raise NotImplementedError("Triggers must implement serialize()")

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Yields an event once what it waits for has come. It may be begun again at any time, and must stand that."""
        raise NotImplementedError("Triggers must implement run()")
        yield

    async def cleanup(self) -> None:
        """Called when it is not needed any more."""

    def __repr__(self):
        classpath, kwargs = self.serialize()
        told = ", ".join(f"{name}={value}" for name, value in kwargs.items())
        return f"<{classpath} {told}>"


class BaseEventTrigger(BaseTrigger):
    """One that may also watch an asset."""


# --- the standard ones

STANDARD = "airflow.providers.standard.triggers"
UTC = datetime.timezone.utc


class DateTimeTrigger(BaseTrigger):
    """Until a moment."""

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
        self.moment = of(moment.astimezone(UTC))
        self.end_from_trigger = end_from_trigger

    def serialize(self):
        return f"{STANDARD}.temporal.DateTimeTrigger", {"moment": self.moment, "end_from_trigger": self.end_from_trigger}

    async def run(self):
        self.log.info("waiting until %s", self.moment)
        # The clock may be set meanwhile.
        while (left := (self.moment - datetime.datetime.now(UTC)).total_seconds()) > 0:
            await asyncio.sleep(min(left, 60))
        yield TaskSuccessEvent() if self.end_from_trigger else TriggerEvent(self.moment)


class TimeDeltaTrigger(DateTimeTrigger):
    """For so long."""

    def __init__(self, delta, *, end_from_trigger=False):
        super().__init__(datetime.datetime.now(UTC) + delta, end_from_trigger=end_from_trigger)


class FileTrigger(BaseTrigger):
    """Until there is a file, or a folder with one; the path may be a pattern."""

    def __init__(self, filepath, recursive=False, poke_interval=5.0, **_):
        super().__init__()
        self.filepath = filepath
        self.recursive = recursive
        self.poke_interval = poke_interval

    def serialize(self):
        told = {"filepath": self.filepath, "recursive": self.recursive, "poke_interval": self.poke_interval}
        return f"{STANDARD}.file.FileTrigger", told

    def found(self):
        for path in glob.glob(str(self.filepath), recursive=self.recursive):
            if os.path.isfile(path) or any(files for _, _, files in os.walk(path)):
                return path
        return None

    async def run(self):
        while (path := await asyncio.to_thread(self.found)) is None:
            await asyncio.sleep(self.poke_interval)
        self.log.info("Found %s", path)
        yield TriggerEvent(True)


class FileDeleteTrigger(BaseEventTrigger):
    """Until there is the file, which it removes."""

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
