"""Sends secrets to the task's keeper (the process that writes its log), which masks them in the output of other
programs."""

from __future__ import annotations

import json
import os

from leoflow.authoring.connection import Connection
from leoflow.common import masking
from leoflow.common.exceptions import AirflowException


def send_secrets_to(descriptor: int) -> None:
    """Sends the environment's secrets and all later secrets to the keeper's pipe. Child processes do not inherit the
    descriptor."""
    import stat

    try:
        if stat.S_ISFIFO(os.fstat(descriptor).st_mode):
            os.set_inheritable(descriptor, False)
            masking.set_keeper(descriptor)
    except OSError:
        # The keeper of an older release has no pipe.
        return
    mask_environment()


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
