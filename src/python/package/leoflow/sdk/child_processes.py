"""Processes that a task starts in a Python of their own, where that has Airflow too: as on Airflow they ask for Variables,
Connections and XComs over a socket, in Airflow's frames, and the task's own supervisor answers."""

from __future__ import annotations

import array
import os
import socket
import threading

from leoflow.sdk import logs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# Where Airflow looks for it.
DESCRIPTOR = "__AIRFLOW_SUPERVISOR_FD"
LAST_LINES_SECONDS = 2


def starts_some(task: Any) -> bool:
    """Whether it is a task of another Python."""
    kind = task.operator_class if getattr(task, "is_mapped", False) else type(task)
    return any(one.__name__ == "_BasePythonVirtualenvOperator" for one in kind.__mro__)


class Server:
    """Answers them until the task has ended."""

    def __init__(self, supervisor: Any):
        self.supervisor = supervisor
        # Of processes' loggers.
        self.logs = []
        self.ours, theirs = socket.socketpair()
        theirs.set_inheritable(True)
        os.environ[DESCRIPTOR] = str(theirs.detach())
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        import msgspec
        from pydantic import TypeAdapter

        from airflow.sdk.execution_time import comms

        decoder, messages = msgspec.msgpack.Decoder(comms._RequestFrame), TypeAdapter(comms.ToSupervisor)
        while True:
            head = self.ours.recv(4, socket.MSG_WAITALL)
            if len(head) < 4:
                return
            request = decoder.decode(self.ours.recv(int.from_bytes(head, "big"), socket.MSG_WAITALL))
            descriptors = []
            try:
                message = messages.validate_python(request.body)
                if type(message).__name__ == "ResendLoggingFD":
                    descriptors = [self.log()]
                    said = comms.SentFDs(fds=descriptors)
                else:
                    said = self.supervisor.send(message)
                # Fields by the names that they have in a message.
                body = None if said is None else said.model_dump(by_alias=True)
                frame = comms._ResponseFrame(id=request.id, body=body).as_bytes()
            except Exception as error:
                told = error.error if hasattr(error, "error") else self.supervisor.problem(str(error)).error
                frame = comms._ResponseFrame(id=request.id, error=told.model_dump()).as_bytes()
            ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
            sent = self.ours.sendmsg([frame], ancillary)
            self.ours.sendall(frame[sent:])
            for one in descriptors:
                os.close(one)

    def log(self):
        """Where such a process writes what its loggers say: it becomes part of the task's log."""
        reader, writer = os.pipe()

        def copy():
            lines = logs.Lines(logs.pass_on)
            while text := os.read(reader, 65536):
                lines.write(text)
            lines.write(b"\n")
            os.close(reader)

        self.logs.append(threading.Thread(target=copy, daemon=True))
        self.logs[-1].start()
        return writer

    def finish(self) -> None:
        """Once the task has run: what its processes have logged is written, unless one of them lives on."""
        for one in self.logs:
            one.join(LAST_LINES_SECONDS)
