"""Sends messages to the task's keeper, the process that writes its log and enforces its time limit: secrets, which it masks
in the output of other programs, and when the task's own code begins."""

from __future__ import annotations

import json
import os

from leoflow.authoring.connection import Connection
from leoflow.common import masking
from leoflow.common.exceptions import AirflowException

# Descriptor of the pipe; None without a keeper.
_pipe = None


def connect(pipe: int) -> None:
    """Sends the environment's secrets and all later secrets to this pipe. Child processes do not inherit it."""
    global _pipe
    os.set_inheritable(pipe, False)
    _pipe = pipe
    masking.on_secret = send
    mask_environment()


def note_begin() -> None:
    """Tells the keeper that the task's own code begins: its time limit counts from the first call."""
    send(None)


def send(message: str | None) -> None:
    if _pipe is None:
        return
    try:
        os.write(_pipe, json.dumps(message).encode() + b"\n")
    except OSError:
        # The keeper has exited; this task is about to end, too.
        pass


def mask_environment() -> None:
    """Masks the secrets of the environment, because programs may print secrets that no Python code has read."""
    for name, value in os.environ.items():
        if name.startswith("AIRFLOW_CONN_"):
            try:
                Connection.from_text(name, value)
            except (AirflowException, ValueError, TypeError):
                # Code that reads the Connection gets the error.
                pass
        elif name.startswith("AIRFLOW_VAR_"):
            masking.mask_sensitive(name[len("AIRFLOW_VAR_"):], value)
        elif name.startswith("AIRFLOW__"):
            try:
                # Such as the arguments of a secrets backend.
                value = json.loads(value) if value.startswith("{") else value
            except ValueError:
                pass
            masking.mask_sensitive(name.rpartition("__")[2], value)
