"""Deferred tasks of the small package: stores the deferral, resumes the task, and runs triggers."""

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

    from leoflow.authoring.operators.abstract_operator import AbstractOperator

# Airflow's `next_method` for a task whose trigger failed or timed out.
FAIL = "__fail__"
TIMED_OUT = "Trigger timeout"


def to_plain(label, value):
    """Converts a value to plain JSON. Raises NotStorable; its message begins with the label."""
    try:
        return plain(value)
    except NotStorable as error:
        raise NotStorable(f"{label} {error}") from None


def read(value):
    return decode(json.dumps(value))


def stored_form(deferred: TaskDeferred) -> dict[str, Any]:
    """Returns the JSON-compatible form of a deferral, for the datastore."""
    classpath, kwargs = deferred.trigger.serialize()
    return {
        "classpath": classpath, "kwargs": to_plain(f"the trigger {classpath}", kwargs),
        "timeout": None if deferred.timeout is None else deferred.timeout.total_seconds(),
        "next_method": deferred.method_name, "next_kwargs": to_plain("kwargs of defer()", deferred.kwargs or {}),
    }


def start_trigger(task: AbstractOperator, context: dict[str, Any]) -> TaskDeferred:
    """Returns the deferral with which a task with `start_from_trigger` starts. As in Airflow, an argument of the
    trigger is a template if the task has a template field of the same name, and the task's `execution_timeout` limits
    the wait."""
    arguments = task.start_trigger_args
    kwargs = {name: task.render_template(value, context) if name in task.template_fields else value
              for name, value in (arguments.trigger_kwargs or {}).items()}
    limits = [limit for limit in (arguments.timeout, task.execution_timeout) if limit is not None]
    return TaskDeferred(trigger=arguments._replace(trigger_kwargs=kwargs), method_name=arguments.next_method,
                        kwargs=arguments.next_kwargs, timeout=min(limits, default=None))


def resume(task: AbstractOperator, next_method: str, next_kwargs: dict[str, Any] | None, context: dict[str, Any]) -> Any:
    """Resumes a deferred task; returns its result. As in Airflow, converts errors of a sensor: a timeout to
    AirflowSensorTimeout, and any error to a skip with `soft_fail` or `never_fail`."""
    try:
        try:
            return call_next_method(task, next_method, next_kwargs, context)
        except TaskDeferralTimeout as error:
            if not hasattr(task, "poke"):
                raise
            raise AirflowSensorTimeout(*error.args) from error
    except AirflowException as error:
        for name in ("soft_fail", "never_fail"):
            if hasattr(task, "poke") and getattr(task, name, False):
                raise AirflowSkipException(f"Skipping due to {name} is set to True.") from error
        raise


def call_next_method(task, next_method, next_kwargs, context):
    """Calls the task's method `next_method`, or raises the error of its trigger."""
    if next_method == FAIL:
        kwargs = next_kwargs or {}
        if kwargs.get("traceback"):
            task.log.error("Trigger failed:\n%s", "\n".join(kwargs["traceback"]))
        error = kwargs.get("error", "Unknown")
        raise (TaskDeferralTimeout if error == TIMED_OUT else TaskDeferralError)(error)
    return getattr(task, next_method)(context, **read(next_kwargs or {}))


class Instance:
    """The task instance, with the attributes that triggers use."""

    def __init__(self, spec):
        self.__dict__.update(spec)


def to_errors(text):
    sys.stderr.write(text)
    sys.stderr.flush()


TRIGGER_BACKEND = trigger_host.TriggerBackend(lambda value: to_plain("the event", value), read, Instance, to_errors)


def wait(options: dict[str, Any]) -> None:
    """Runs triggers until the agent closes the connection. The working directory, the project's variables and the
    import hooks must be set up."""
    os.set_inheritable(trigger_host.AGENT, False)
    leoflow_server.configure(options["socket"])
    leoflow_server.allow_writes()
    asyncio.run(trigger_host.serve(TRIGGER_BACKEND, task_log.begin_loggers))
