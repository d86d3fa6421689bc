"""The process that runs the triggers of a project's deferred tasks in one event loop. The agent sends one line of JSON
per trigger and receives the outcomes as lines of JSON."""

from __future__ import annotations

import asyncio
import contextvars
import importlib
import json
import os
import threading
import traceback

from leoflow.common import masking, task_log
from leoflow.common.hints.error_hint import hint as error_hint
from leoflow.common.reports import clean
from leoflow.running import loading

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

# Descriptor of the connection to the agent.
AGENT = 3
# Seconds for cancelled triggers to clean up.
CLEANUP_SECONDS = 10
# Seconds for `on_kill()` of a trigger whose task was cleared or marked.
KILL_SECONDS = 20
# Seconds until a watcher (a trigger that watches an asset) is restarted; doubled with each failure.
SHORTEST_PAUSE, LONGEST_PAUSE = 1, 60

# The id of the trigger whose code is running.
CURRENT = contextvars.ContextVar("the trigger that runs", default=None)


class TriggerBackend:
    """The differences between the small package and Airflow's SDK: the serialization of arguments, and the task
    instance that a trigger gets."""

    def __init__(self, encode: Callable[[Any], Any], decode: Callable[[Any], Any], make_instance: Callable[[dict[str, Any]], Any],
                 to_errors: Callable[[str], None]):
        self.encode = encode
        self.decode = decode
        self.make_instance = make_instance
        # Writes text that belongs to no trigger to stderr.
        self.to_errors = to_errors

    def on_trigger_end(self, instance: Any) -> None:
        """Called when the trigger of an instance has ended."""

    def make_trigger(self, request: dict[str, Any]) -> Any:
        module, _, name = request["classpath"].rpartition(".")
        trigger = getattr(importlib.import_module(module), name)(**self.decode(request["kwargs"]))
        trigger.trigger_id = request["id"]
        trigger.task_instance = None if request.get("watches") else self.make_instance(request["of"])
        trigger.timeout_after = None
        return trigger

    def outcome(self, event: Any, next_kwargs: Any) -> dict[str, Any]:
        state = getattr(event, "task_instance_state", None)
        if state is not None:
            return {"ended": str(getattr(state, "value", state)), "xcoms": event.xcoms or {}}
        return {"next_kwargs": self.encode({**self.decode(next_kwargs), "event": event.payload})}

    def run_here(self, deferral: dict[str, Any], spec: dict[str, Any]) -> dict[str, Any]:
        """Runs one trigger in this process; returns `next_method` and `next_kwargs` of the task, or the state in which
        the event ended it (`ended`)."""
        names = ("dag_id", "run_id", "task_id", "map_index", "try_number")
        request = {**deferral, "id": 0, "of": {name: spec[name] for name in names}}
        failure = {"next_method": "__fail__"}

        async def first_event():
            async for event in self.make_trigger(request).run():
                return event

        try:
            event = asyncio.run(asyncio.wait_for(first_event(), deferral["timeout"]))
        except asyncio.TimeoutError:
            return {**failure, "next_kwargs": {"error": "Trigger timeout"}}
        except Exception as error:
            return {**failure, "next_kwargs": {"error": "Trigger failure", "traceback": traceback_lines(error)}}
        if event is None:
            return {**failure, "next_kwargs": {"error": "Trigger failure", "traceback": ["The trigger ended without an event"]}}
        return {"next_method": deferral["next_method"], **self.outcome(event, deferral["next_kwargs"])}


class Host:
    def __init__(self, backend, reader, writer):
        self.loop, self.thread = asyncio.get_running_loop(), threading.get_ident()
        self.backend = backend
        self.reader = reader
        self.writer = writer
        # asyncio tasks by the id of their trigger.
        self.running = {}
        # All asyncio tasks, including cancelled ones that are cleaning up.
        self.tasks = set()
        # Cancelled asyncio tasks whose trigger gets `on_kill()`, because a user cleared, marked or deleted its task.
        self.killed = set()

    async def serve(self) -> None:
        """Serves requests until the agent closes the connection."""
        while line := await self.reader.readline():
            request = json.loads(line)
            if "cancel" in request:
                task = self.running.pop(request["cancel"], None)
                if task is not None:
                    if request.get("killed"):
                        self.killed.add(task)
                    task.cancel()
            elif request["id"] not in self.running:
                run_trigger = self.watch if request.get("watches") else self.run
                task = self.running[request["id"]] = asyncio.create_task(run_trigger(request))
                self.tasks.add(task)
                task.add_done_callback(self.tasks.discard)
                task.add_done_callback(self.killed.discard)
        cancelled, self.running = self.running, {}
        for task in cancelled.values():
            task.cancel()
        if self.tasks:
            await asyncio.wait(self.tasks, timeout=CLEANUP_SECONDS)

    def send(self, **message):
        self.writer.write(json.dumps(clean(message), allow_nan=False).encode() + b"\n")

    def log(self, record: dict[str, Any]) -> None:
        """Handles an event of a logger. An event of a trigger becomes part of its task's log. May be called in any
        thread."""
        current, record = CURRENT.get(), task_log.masked(record)
        if current is None:
            self.backend.to_errors(task_log.format_record(record) + "\n")
        elif threading.get_ident() == self.thread:
            self.send(id=current, log=task_log.line(record))
        else:
            self.loop.call_soon_threadsafe(lambda: self.send(id=current, log=task_log.line(record)))

    async def run(self, request):
        """Runs a trigger until its first event."""
        CURRENT.set(request["id"])
        trigger = None
        try:
            trigger = self.backend.make_trigger(request)
            async for event in trigger.run():
                self.send(id=request["id"], **self.backend.outcome(event, request["next_kwargs"]))
                break
            else:
                self.send(id=request["id"], failed=[f"The trigger {request['classpath']} ended without an event"])
        except asyncio.CancelledError as error:
            # `serve` removes a trigger before it cancels its asyncio task. A trigger that is still in `running` has
            # cancelled itself.
            if request["id"] in self.running:
                self.send(id=request["id"], failed=traceback_lines(error))
            await self.kill(trigger)
            raise
        except BaseException as error:
            self.send(id=request["id"], failed=traceback_lines(error))
        finally:
            self.running.pop(request["id"], None)
            await self.clean_up(trigger)

    async def watch(self, request):
        """Runs a trigger that watches an asset, and restarts it whenever it ends or fails, until it is cancelled."""
        pause = SHORTEST_PAUSE
        while True:
            trigger = None
            try:
                trigger = self.backend.make_trigger(request)
                async for event in trigger.run():
                    pause = SHORTEST_PAUSE
                    self.send(id=request["id"], event={"payload": event.payload, "asset_id": request["asset_id"]})
                    await self.writer.drain()
            except BaseException as error:
                # `serve` removes a watcher before it cancels its asyncio task. A watcher that has cancelled itself
                # counts as failed.
                if self.running.get(request["id"]) is not asyncio.current_task():
                    await self.kill(trigger)
                    raise
                pause = min(2 * pause, LONGEST_PAUSE)
                self.log_failure(f"restarting the watcher {request['classpath']} in {pause} s:", error)
            finally:
                await self.clean_up(trigger)
            await asyncio.sleep(pause)

    def log_failure(self, message, error):
        self.backend.to_errors("\n".join([message, *traceback_lines(error)]) + "\n")

    async def kill(self, trigger):
        """Calls `on_kill()` of a trigger if the agent requested that. The end of this process does not call it."""
        if asyncio.current_task() not in self.killed:
            return
        self.killed.discard(asyncio.current_task())
        # Releases of Airflow before 3.3 have no `on_kill()`.
        on_kill = getattr(trigger, "on_kill", None)
        if on_kill is None:
            return
        try:
            await asyncio.wait_for(on_kill(), KILL_SECONDS)
        except asyncio.CancelledError:
            # The host ends meanwhile and has cancelled this asyncio task again; the first cancellation ends it.
            pass
        except Exception as error:
            self.log_failure("on_kill() of a trigger failed:", error)

    async def clean_up(self, trigger):
        if trigger is not None:
            try:
                await trigger.cleanup()
            except Exception as error:
                self.log_failure("cleanup of a trigger failed:", error)
            finally:
                self.backend.on_trigger_end(trigger.task_instance)


def traceback_lines(error):
    """Returns the lines of an error's traceback, with secrets masked."""
    text = "".join(traceback.format_exception(error)) + (error_hint(error) or "")
    return clean(masking.hide(text)).splitlines()


async def serve(backend: TriggerBackend, begin_logs: Callable[[Callable[[dict[str, Any]], None]], None]) -> None:
    """Runs the host and then exits the process; never returns. Calls `begin_logs` with the handler for events of
    loggers."""
    import socket

    loading.finish()
    reader, writer = await asyncio.open_connection(sock=socket.socket(fileno=AGENT), limit=64 * 1024 * 1024)
    try:
        host = Host(backend, reader, writer)
        begin_logs(host.log)
        await host.serve()
    except BaseException:
        # The agent reports this output as the reason to the waiting tasks.
        backend.to_errors(masking.hide(traceback.format_exc()))
        os._exit(1)
    # Exits without waiting for threads that triggers started.
    os._exit(0)
