"""What the keeper of a task is told, so that it hides secrets in what other programs print too."""

from __future__ import annotations

import os

from leoflow.authoring.connection import Connection
from leoflow.common import masking


def tell_secrets_to(descriptor: int) -> None:
    """Where a keeper listens. No child of this process has to do with it."""
    import stat

    try:
        if stat.S_ISFIFO(os.fstat(descriptor).st_mode):
            os.set_inheritable(descriptor, False)
            masking.tell(descriptor)
    except OSError:
        # An older keeper has none.
        return
    # Nobody has to read those of the environment for a program to print them.
    for name, value in os.environ.items():
        if name.startswith("AIRFLOW_CONN_"):
            try:
                Connection.from_text(name, value)
            except (ValueError, TypeError):
                # Whoever uses it is told what is wrong with it.
                pass
        elif name.startswith("AIRFLOW_VAR_"):
            masking.note_secret(name[len("AIRFLOW_VAR_"):], value)
