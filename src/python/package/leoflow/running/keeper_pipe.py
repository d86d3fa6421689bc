"""Sends secrets to the task's keeper (the process that writes its log), which masks them in the output of other
programs."""

from __future__ import annotations

import os

from leoflow.authoring.connection import Connection
from leoflow.common import masking
from leoflow.common.exceptions import AirflowException


def send_secrets_to(descriptor: int) -> None:
    """Sends secrets to a keeper's pipe, which children of this process do not inherit."""
    import stat

    try:
        if stat.S_ISFIFO(os.fstat(descriptor).st_mode):
            os.set_inheritable(descriptor, False)
            masking.set_keeper(descriptor)
    except OSError:
        # An older keeper has no pipe.
        return
    note_environment()


def note_environment() -> None:
    """Masks the secrets of the environment: programs may print those that no Python code reads, too."""
    for name, value in os.environ.items():
        if name.startswith("AIRFLOW_CONN_"):
            try:
                Connection.from_text(name, value)
            except (AirflowException, ValueError, TypeError):
                # Code that uses the connection gets the error.
                pass
        elif name.startswith("AIRFLOW_VAR_"):
            masking.note_secret(name[len("AIRFLOW_VAR_"):], value)
