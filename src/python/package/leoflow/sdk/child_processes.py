"""Serves child processes that a task starts in another Python with Airflow. As in Airflow, they request Variables,
Connections and XComs over a socket, in Airflow's frames; the task's supervisor answers them."""

from __future__ import annotations

import array
import os
import socket
import threading

from leoflow.sdk import logs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# Airflow's environment variable with the number of the socket's descriptor.
DESCRIPTOR = "__AIRFLOW_SUPERVISOR_FD"
LAST_LINES_SECONDS = 2


def starts_child_processes(task: Any) -> bool:
    """True if the task runs its function in another Python."""
    kind = task.operator_class if getattr(task, "is_mapped", False) else type(task)
    return any(base.__name__ == "_BasePythonVirtualenvOperator" for base in kind.__mro__)


class Server:
    """Answers requests of child processes until the task has ended."""

    def __init__(self, supervisor: Any):
        self.supervisor = supervisor
        # Threads that copy the logs of child processes.
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
                    descriptors = [self.open_log()]
                    response = comms.SentFDs(fds=descriptors)
                else:
                    response = self.supervisor.send(message)
                # Messages use the fields' aliases.
                body = None if response is None else response.model_dump(by_alias=True)
                frame = comms._ResponseFrame(id=request.id, body=body).as_bytes()
            except Exception as error:
                error_response = error.error if hasattr(error, "error") else self.supervisor.problem(str(error)).error
                frame = comms._ResponseFrame(id=request.id, error=error_response.model_dump()).as_bytes()
            ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
            sent = self.ours.sendmsg([frame], ancillary)
            self.ours.sendall(frame[sent:])
            for descriptor in descriptors:
                os.close(descriptor)

    def open_log(self):
        """Returns a descriptor for the logs of a child process, which a thread copies to the task's log."""
        reader, writer = os.pipe()

        def copy():
            lines = logs.Lines(logs.send_to_sink)
            while text := os.read(reader, 65536):
                lines.write(text)
            lines.write(b"\n")
            os.close(reader)

        self.logs.append(threading.Thread(target=copy, daemon=True))
        self.logs[-1].start()
        return writer

    def finish(self) -> None:
        """Waits until the logs of child processes are written, for each process at most LAST_LINES_SECONDS."""
        for thread in self.logs:
            thread.join(LAST_LINES_SECONDS)
