"""The process that runs triggers of Airflow's SDK and its providers."""

from __future__ import annotations

import asyncio
import contextvars
import os

from leoflow.common import leoflow_server
from leoflow.common.client import ServerError
from leoflow.running import trigger_host
from leoflow.sdk import logs, named_classes, older_versions, startup
from leoflow.sdk.messages import xcoms
from leoflow.sdk.supervisor import INSTANCE_NAMES, TaskSupervisor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


# The request for the trigger whose code is running, copied to the threads that the code starts with a copy of its context.
REQUEST: contextvars.ContextVar[dict[str, Any] | None] = contextvars.ContextVar("request", default=None)
# Messages that belong to a running task, not to its trigger.
TASK_MESSAGES = ("CreateHITLDetailPayload", "TriggerDagRun", "GetPrevSuccessfulDagRun", "UpdateDagRunNote")
# Requests about the task instance of the trigger.
OWN_REQUESTS = ("xcoms/push", "xcoms/delete", "state/get", "state/set", "state/delete")


class TriggerSupervisor(TaskSupervisor):
    """Answers messages of triggers, which belong to no running try."""

    def __init__(self):
        super().__init__(WaitingInstance())
        for kind in [kind for kind in self.answers if kind in TASK_MESSAGES or "TaskStateStore" in kind]:
            del self.answers[kind]
        # A trigger has no result with which its return value could be sent.
        self.xcoms.keep_return_value = lambda text, _: self.xcoms.push(xcoms.RETURN, text)

    def instance(self, ti_id):
        return INSTANCES[str(ti_id)]

    def ask(self, path: str, body: Any = None, method: str | None = None) -> Any:
        if path in OWN_REQUESTS:
            request = REQUEST.get()
            if request is None:
                raise ServerError(400, "a thread without the context of its trigger has no task: start it with asyncio.to_thread")
            path = f"of/{request['id']}/{path}"
        return leoflow_server.client().request(method or ("GET" if body is None else "POST"), f"/local/triggers/{path}", body)


class WaitingInstance:
    """The ids of the task instance whose trigger is running; None for a watcher."""

    def __getitem__(self, name):
        return self.get(name)

    def get(self, name, default=None):
        return (REQUEST.get() or {}).get("of", {}).get(name, default)


# The task instances of running triggers, by Airflow's id.
INSTANCES = {}


def make_instance(spec):
    from airflow.sdk.execution_time import comms

    fields = {**spec, "id": startup.instance_id(spec), "dag_version_id": startup.version_id(spec["dag_id"]),
              "hostname": os.uname().nodename}
    known = comms.TaskInstance.model_fields
    instance = comms.TaskInstance(**{name: value for name, value in fields.items() if name in known})
    INSTANCES[str(instance.id)] = {name: spec[name] for name in INSTANCE_NAMES if name in spec}
    return instance


class SdkTriggerBackend(trigger_host.TriggerBackend):
    def make_trigger(self, request):
        REQUEST.set(request)
        trigger = super().make_trigger(request)
        # Releases of Airflow before 3.3 have no state stores.
        if "asset" in request and hasattr(trigger, "asset_state_store"):
            from airflow.sdk import Asset
            from airflow.sdk.execution_time.context import AssetStateStoreAccessors

            trigger.asset_state_store = AssetStateStoreAccessors(inlets=[Asset(**request["asset"])])
        return trigger

    def on_trigger_end(self, instance):
        if instance is not None:
            INSTANCES.pop(str(instance.id), None)


TRIGGER_BACKEND = SdkTriggerBackend(older_versions.encode, older_versions.decode, make_instance, logs.to_errors)


def main(options: dict[str, Any]) -> None:
    """Runs triggers. The working directory, the project's variables and the import hooks must be set up."""
    # Comes first, because imports of Airflow may need one of the classes.
    named_classes.check()
    from airflow.sdk.execution_time import task_runner
    from leoflow.sdk import task_try
    from leoflow.sdk.dag_file import enter_project

    os.set_inheritable(trigger_host.AGENT, False)
    leoflow_server.configure(options["socket"])
    leoflow_server.allow_writes()
    enter_project()
    task_runner.SUPERVISOR_COMMS = TriggerSupervisor()
    task_try.block_database()
    asyncio.run(trigger_host.serve(TRIGGER_BACKEND, logs.configure))
