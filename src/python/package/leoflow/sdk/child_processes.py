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


def starts_some(task: Any) -> bool:
    """Whether it is a task of another Python."""
    return any(kind.__name__ == "_BasePythonVirtualenvOperator" for kind in type(task).__mro__)


def serve(supervisor: Any) -> None:
    """Answers them from now on, in threads that end with this process."""
    ours, theirs = socket.socketpair()
    theirs.set_inheritable(True)
    os.environ[DESCRIPTOR] = str(theirs.detach())
    threading.Thread(target=answer_all, args=(ours, supervisor), daemon=True).start()


def answer_all(connection, supervisor):
    import msgspec
    from pydantic import TypeAdapter

    from airflow.sdk.execution_time import comms

    decoder, messages = msgspec.msgpack.Decoder(comms._RequestFrame), TypeAdapter(comms.ToSupervisor)
    while True:
        head = connection.recv(4, socket.MSG_WAITALL)
        if len(head) < 4:
            return
        request = decoder.decode(connection.recv(int.from_bytes(head, "big"), socket.MSG_WAITALL))
        descriptors = []
        try:
            message = messages.validate_python(request.body)
            if type(message).__name__ == "ResendLoggingFD":
                descriptors = [log()]
                said = {"body": comms.SentFDs(fds=descriptors).model_dump()}
            else:
                answer = supervisor.send(message)
                said = {"body": None if answer is None else answer.model_dump()}
        except Exception as error:
            told = error.error if hasattr(error, "error") else supervisor.problem(str(error)).error
            said = {"error": told.model_dump()}
        frame = comms._ResponseFrame(id=request.id, **said).as_bytes()
        sent = connection.sendmsg([frame], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else [])
        connection.sendall(frame[sent:])
        for one in descriptors:
            os.close(one)


def log() -> int:
    """Where such a process writes what its loggers say: it becomes part of the task's log."""
    reader, writer = os.pipe()

    def pass_on():
        lines = logs.Lines()
        while text := os.read(reader, 65536):
            lines.write(text)
        os.close(reader)

    threading.Thread(target=pass_on, daemon=True).start()
    return writer
