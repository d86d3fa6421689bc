"""A process that runs the triggers of deferred tasks, all of one project's environment in one event loop. The agent says
which, a line of JSON for each, and hears of what they come to in the same way."""

from __future__ import annotations

import asyncio
import contextvars
import importlib
import json
import os
import threading
import traceback

from leoflow.common import masking, task_log
from leoflow.common.packages import missing_package
from leoflow.common.reports import clean

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

# Where the agent is.
AGENT = 3
# How long those that are not wanted any more may take to clean up, seconds.
CLEANUP_SECONDS = 10
# Until a watcher begins again, seconds: that was its end, or that failed again and again.
SHORTEST_PAUSE, LONGEST_PAUSE = 1, 60

# The trigger in whose context the code runs.
CURRENT = contextvars.ContextVar("the trigger that runs", default=None)


class Kind:
    """What differs between the two packages: how arguments are written down, and what a trigger knows of its task."""

    def __init__(self, encode: Callable[[Any], Any], decode: Callable[[Any], Any], make_instance: Callable[[dict[str, Any]], Any],
                 to_errors: Callable[[str], None]):
        self.encode = encode
        self.decode = decode
        self.make_instance = make_instance
        # Writes lines of no trigger.
        self.to_errors = to_errors

    def forget(self, instance: Any) -> None:
        """Its trigger is done."""

    def make_trigger(self, told: dict[str, Any]) -> Any:
        module, _, name = told["classpath"].rpartition(".")
        trigger = getattr(importlib.import_module(module), name)(**self.decode(told["kwargs"]))
        trigger.trigger_id = told["id"]
        trigger.task_instance = None if told.get("watches") else self.make_instance(told["of"])
        trigger.timeout_after = None
        return trigger

    def outcome(self, event: Any, next_kwargs: Any) -> dict[str, Any]:
        state = getattr(event, "task_instance_state", None)
        if state is not None:
            return {"ended": str(getattr(state, "value", state)), "xcoms": event.xcoms or {}}
        return {"next_kwargs": self.encode({**self.decode(next_kwargs), "event": event.payload})}

    def run_here(self, deferral: dict[str, Any], spec: dict[str, Any]) -> dict[str, Any]:
        """One trigger in this process: `next_method` and `next_kwargs` of the task."""
        names = ("dag_id", "run_id", "task_id", "map_index", "try_number")
        told = {**deferral, "id": 0, "of": {name: spec[name] for name in names}}
        fails = {"next_method": "__fail__"}

        async def first():
            async for event in self.make_trigger(told).run():
                return event

        try:
            event = asyncio.run(asyncio.wait_for(first(), deferral["timeout"]))
        except asyncio.TimeoutError:
            return {**fails, "next_kwargs": {"error": "Trigger timeout"}}
        except Exception as error:
            return {**fails, "next_kwargs": {"error": "Trigger failure", "traceback": trace(error)}}
        if event is None:
            return {**fails, "next_kwargs": {"error": "Trigger failure", "traceback": ["It has ended without an event"]}}
        return {"next_method": deferral["next_method"], **self.outcome(event, deferral["next_kwargs"])}


class Host:
    def __init__(self, kind, reader, writer):
        self.loop, self.thread = asyncio.get_running_loop(), threading.get_ident()
        self.kind = kind
        self.reader = reader
        self.writer = writer
        self.running = {}
        # Also those that are cancelled and clean up.
        self.tasks = set()

    async def serve(self) -> None:
        """Until the agent has gone."""
        while line := await self.reader.readline():
            told = json.loads(line)
            if "cancel" in told:
                task = self.running.pop(told["cancel"], None)
                if task is not None:
                    task.cancel()
            elif told["id"] not in self.running:
                run = self.watch if told.get("watches") else self.run
                task = self.running[told["id"]] = asyncio.create_task(run(told))
                self.tasks.add(task)
                task.add_done_callback(self.tasks.discard)
        wanted, self.running = self.running, {}
        for task in wanted.values():
            task.cancel()
        if self.tasks:
            await asyncio.wait(self.tasks, timeout=CLEANUP_SECONDS)

    def tell(self, **message):
        self.writer.write(json.dumps(clean(message), allow_nan=False).encode() + b"\n")

    def log(self, record: dict[str, Any]) -> None:
        """An event of a logger: of a trigger it is part of its task's log. From any thread."""
        current, record = CURRENT.get(), task_log.hidden(record)
        if current is None:
            self.kind.to_errors(task_log.shown(record) + "\n")
        elif threading.get_ident() == self.thread:
            self.tell(id=current, log=task_log.line(record))
        else:
            self.loop.call_soon_threadsafe(lambda: self.tell(id=current, log=task_log.line(record)))

    async def run(self, told):
        """One trigger, until its first event."""
        CURRENT.set(told["id"])
        trigger = None
        try:
            trigger = self.kind.make_trigger(told)
            async for event in trigger.run():
                self.tell(id=told["id"], **self.kind.outcome(event, told["next_kwargs"]))
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
            await self.clean_up(trigger)

    async def watch(self, told):
        """One that watches an asset: for as long as it is wanted, whatever becomes of it."""
        pause = SHORTEST_PAUSE
        while True:
            trigger = None
            try:
                trigger = self.kind.make_trigger(told)
                async for event in trigger.run():
                    pause = SHORTEST_PAUSE
                    self.tell(id=told["id"], event={"payload": event.payload, "asset_id": told["asset_id"]})
                    await self.writer.drain()
            except BaseException as error:
                # By us it is forgotten before it hears of it; what it cancels itself is a fault like others.
                if self.running.get(told["id"]) is not asyncio.current_task():
                    raise
                pause = min(2 * pause, LONGEST_PAUSE)
                self.complain(f"the watcher {told['classpath']} begins again in {pause} s:", error)
            finally:
                await self.clean_up(trigger)
            await asyncio.sleep(pause)

    def complain(self, what, error):
        self.kind.to_errors("\n".join([what, *trace(error)]) + "\n")

    async def clean_up(self, trigger):
        if trigger is not None:
            try:
                await trigger.cleanup()
            except Exception as error:
                self.complain("a trigger cannot clean up:", error)
            finally:
                self.kind.forget(trigger.task_instance)


def trace(error):
    """Its lines, without the secrets that were read."""
    text = "".join(traceback.format_exception(error)) + (missing_package(error) or "")
    return clean(masking.hide(text)).splitlines()


async def serve(kind: Kind, begin_logs: Callable[[Callable[[dict[str, Any]], None]], None]) -> None:
    """Never returns. `begin_logs` is given what takes the events of loggers."""
    import socket

    reader, writer = await asyncio.open_connection(sock=socket.socket(fileno=AGENT), limit=64 * 1024 * 1024)
    try:
        host = Host(kind, reader, writer)
        begin_logs(host.log)
        await host.serve()
    except BaseException:
        # Its end becomes the reason of the tasks that wait.
        kind.to_errors(masking.hide(traceback.format_exc()))
        os._exit(1)
    # A thread that a trigger has left must not keep us.
    os._exit(0)
