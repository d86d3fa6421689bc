"""Deferred tasks of our own package: what they leave, how they go on, and the process that waits in their place."""

from __future__ import annotations

import asyncio
import json
import os
import sys

from leoflow.common import leoflow_server, task_log
from leoflow.common.exceptions import (
    AirflowException,
    AirflowSensorTimeout,
    AirflowSkipException,
    TaskDeferralError,
    TaskDeferralTimeout,
    TaskDeferred,
)
from leoflow.common.values import NotStorable, decode, plain
from leoflow.running import trigger_host

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from leoflow.authoring.abstract_operator import AbstractOperator

FAIL = "__fail__"
TIMED_OUT = "Trigger timeout"


def written(what, value):
    try:
        return plain(value)
    except NotStorable as error:
        raise NotStorable(f"{what} {error}") from None


def read(value):
    return decode(json.dumps(value))


def told(deferred: TaskDeferred) -> dict[str, Any]:
    """What the datastore keeps of it."""
    classpath, kwargs = deferred.trigger.serialize()
    return {
        "classpath": classpath, "kwargs": written(f"the trigger {classpath}", kwargs),
        "timeout": None if deferred.timeout is None else deferred.timeout.total_seconds(),
        "next_method": deferred.method_name, "next_kwargs": written("kwargs of defer()", deferred.kwargs or {}),
    }


def resume(task: AbstractOperator, next_method: str, next_kwargs: dict[str, Any] | None, context: dict[str, Any]) -> Any:
    """What a task returns that goes on, in the place of `execute`; a sensor ends as sensors do."""
    try:
        try:
            return go_on(task, next_method, next_kwargs, context)
        except TaskDeferralTimeout as error:
            if not hasattr(task, "poke"):
                raise
            raise AirflowSensorTimeout(*error.args) from error
    except AirflowException as error:
        for name in ("soft_fail", "never_fail"):
            if hasattr(task, "poke") and getattr(task, name, False):
                raise AirflowSkipException(f"Skipping due to {name} is set to True.") from error
        raise


def go_on(task, next_method, next_kwargs, context):
    if next_method == FAIL:
        kwargs = next_kwargs or {}
        if kwargs.get("traceback"):
            task.log.error("Trigger failed:\n%s", "\n".join(kwargs["traceback"]))
        error = kwargs.get("error", "Unknown")
        raise (TaskDeferralTimeout if error == TIMED_OUT else TaskDeferralError)(error)
    return getattr(task, next_method)(context, **read(next_kwargs or {}))


class Instance:
    """The task instance, as far as a trigger knows it."""

    def __init__(self, spec):
        self.__dict__.update(spec)


def to_errors(text):
    sys.stderr.write(text)
    sys.stderr.flush()


KIND = trigger_host.Kind(lambda value: written("the event", value), read, Instance, to_errors)


def wait(options: dict[str, Any]) -> None:
    """In a project's folder, with its variables and its modules: until the agent has gone."""
    os.set_inheritable(trigger_host.AGENT, False)
    leoflow_server.use(options["socket"])
    asyncio.run(trigger_host.serve(KIND, task_log.begin_loggers))
