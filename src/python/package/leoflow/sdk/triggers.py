"""A process that runs the triggers of deferred tasks, all of one project's environment in one event loop. The agent says
which, a line of JSON for each, and hears of what they come to in the same way."""

from __future__ import annotations

import asyncio
import contextvars
import importlib
import json
import os
import sys
import threading
import traceback

from leoflow.common import leoflow_server, masking, real_sdk
from leoflow.common.packages import missing_package
from leoflow.common.reports import clean
from leoflow.sdk import logs, older_versions, startup
from leoflow.sdk.supervisor import TaskSupervisor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# Where the agent is.
AGENT = 3
# How long those that are not wanted any more may take to clean up, seconds.
CLEANUP_SECONDS = 10


class TriggerSupervisor(TaskSupervisor):
    """What triggers may ask: of no try, by the rights of the user."""

    def __init__(self):
        super().__init__({"dag_id": "", "run_id": "", "task_id": "", "map_index": -1})
        # There is no state store for what is no try.
        for kind in [kind for kind in self.answers if "StateStore" in kind]:
            del self.answers[kind]
        del self.answers["CreateHITLDetailPayload"]
        for kind in ("SetXCom", "DeleteXCom", "PutVariable", "DeleteVariable", "TriggerDagRun", "GetPrevSuccessfulDagRun"):
            del self.answers[kind]

    def instance(self, ti_id):
        return INSTANCES[str(ti_id)]

    def ask(self, place: str, body: Any = None, method: str | None = None) -> Any:
        return leoflow_server.client().request(method or ("GET" if body is None else "POST"), f"/local/triggers/{place}", body)


# The task instances whose triggers have been here, by Airflow's id.
INSTANCES = {}
# The trigger in whose context the code runs.
CURRENT = contextvars.ContextVar("the trigger that runs", default=None)


class Host:
    def __init__(self, reader, writer):
        self.loop, self.thread = asyncio.get_running_loop(), threading.get_ident()
        self.reader = reader
        self.writer = writer
        self.running = {}

    async def serve(self) -> None:
        """Until the agent has gone."""
        while line := await self.reader.readline():
            told = json.loads(line)
            if "cancel" in told:
                task = self.running.pop(told["cancel"], None)
                if task is not None:
                    task.cancel()
            elif told["id"] not in self.running:
                self.running[told["id"]] = asyncio.create_task(self.run(told))
        for task in self.running.values():
            task.cancel()
        if self.running:
            await asyncio.wait(self.running.values(), timeout=CLEANUP_SECONDS)

    def tell(self, **message):
        self.writer.write(json.dumps(clean(message), allow_nan=False).encode() + b"\n")

    def log(self, text):
        """Lines of a logger: of a trigger they are part of its task's log. From any thread."""
        current = CURRENT.get()
        if current is None:
            logs.to_errors(text)
        elif threading.get_ident() == self.thread:
            self.tell(id=current, log=masking.hide(text))
        else:
            self.loop.call_soon_threadsafe(lambda: self.tell(id=current, log=masking.hide(text)))

    async def run(self, told):
        """One trigger, until its first event."""
        CURRENT.set(told["id"])
        trigger = None
        try:
            trigger = make_trigger(told)
            async for event in trigger.run():
                self.tell(id=told["id"], **outcome(event, told["next_kwargs"]))
                break
            else:
                self.tell(id=told["id"], failed=[f"The trigger {told['classpath']} has ended without an event"])
        except asyncio.CancelledError as error:
            # By us it is forgotten before it hears of it.
            if told["id"] in self.running:
                self.tell(id=told["id"], failed=trace(error))
            raise
        except BaseException as error:
            self.tell(id=told["id"], failed=trace(error))
        finally:
            self.running.pop(told["id"], None)
            if trigger is not None:
                try:
                    await trigger.cleanup()
                except Exception:
                    traceback.print_exc()


def trace(error):
    """Its lines, without the secrets that were read."""
    text = "".join(traceback.format_exception(error)) + (missing_package(error) or "")
    return clean(masking.hide(text)).splitlines()


def class_of(classpath):
    module, _, name = classpath.rpartition(".")
    return getattr(importlib.import_module(module), name)


def make_trigger(told):
    kind = class_of(told["classpath"])
    trigger = kind(**older_versions.decode(told["kwargs"]))
    trigger.trigger_id = told["id"]
    spec = told["of"]
    trigger.task_instance = make_instance(spec)
    INSTANCES[str(trigger.task_instance.id)] = {name: spec[name] for name in ("dag_id", "run_id", "task_id", "map_index")}
    trigger.timeout_after = None
    return trigger


def make_instance(spec):
    from airflow.sdk.execution_time import comms

    fields = {**spec, "id": startup.instance_id(spec), "dag_version_id": startup.version_id(spec["dag_id"]),
              "hostname": os.uname().nodename}
    known = comms.TaskInstance.model_fields
    return comms.TaskInstance(**{name: value for name, value in fields.items() if name in known})


def outcome(event, next_kwargs):
    state = getattr(event, "task_instance_state", None)
    if state is not None:
        return {"ended": str(getattr(state, "value", state)), "xcoms": event.xcoms or {}}
    return {"next_kwargs": older_versions.encode({**older_versions.decode(next_kwargs), "event": event.payload})}


def run_here(deferral: dict[str, Any], spec: dict[str, Any]) -> dict[str, Any]:
    """One trigger in this process: `next_method` and `next_kwargs` of the task."""
    names = ("dag_id", "run_id", "task_id", "map_index", "try_number")
    told = {**deferral, "id": 0, "of": {name: spec[name] for name in names}}
    fails = {"next_method": "__fail__"}

    async def first():
        async for event in make_trigger(told).run():
            return event

    try:
        event = asyncio.run(asyncio.wait_for(first(), deferral["timeout"]))
    except asyncio.TimeoutError:
        return {**fails, "next_kwargs": {"error": "Trigger timeout"}}
    except Exception as error:
        return {**fails, "next_kwargs": {"error": "Trigger failure", "traceback": trace(error)}}
    if event is None:
        return {**fails, "next_kwargs": {"error": "Trigger failure", "traceback": ["It has ended without an event"]}}
    return {"next_method": deferral["next_method"], **outcome(event, deferral["next_kwargs"])}


async def serve():
    import socket

    reader, writer = await asyncio.open_connection(sock=socket.socket(fileno=AGENT), limit=64 * 1024 * 1024)
    try:
        host = Host(reader, writer)
        logs.configure(host.log)
        await host.serve()
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    # A thread that a trigger has left must not keep us.
    os._exit(0)


def main(options: dict[str, Any]) -> None:
    """In a project's folder, with its variables."""
    from airflow.sdk.execution_time import task_runner
    from leoflow.sdk import task_try
    from leoflow.sdk.dag_file import enter_project

    os.set_inheritable(AGENT, False)
    leoflow_server.use(options["socket"])
    sys.path.extend(options["work_in"])
    real_sdk.enter_project(options["work_in"])
    enter_project()
    task_runner.SUPERVISOR_COMMS = TriggerSupervisor()
    task_try.block_database()
    asyncio.run(serve())
