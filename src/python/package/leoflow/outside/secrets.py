"""A secrets backend of Airflow that reads the Variables and Connections of the running Leoflow. Airflow's own
`dag.test()` uses it in the Python of a project's `.venv`."""

from __future__ import annotations

import json
import os

try:
    from airflow.sdk.bases.secrets_backend import BaseSecretsBackend
except ImportError:  # Before Airflow 3.2.
    from airflow.secrets import BaseSecretsBackend

from leoflow.authoring.connection import FIELDS
from leoflow.common import leoflow_server
from leoflow.common.exceptions import AirflowRuntimeError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class ServerSecrets(BaseSecretsBackend):
    """Returns None for what Leoflow does not have, so that Airflow continues its search."""

    def get_variable(self, key: str, team_name: str | None = None) -> str | None:
        fields = stored("variables", key)
        return None if fields is None else fields["value"]

    def get_conn_value(self, conn_id: str, team_name: str | None = None) -> str | None:
        fields = stored("connections", conn_id)
        return None if fields is None else json.dumps({name: fields[name] for name in FIELDS if fields.get(name) is not None})


def stored(kind: str, key: str) -> dict[str, Any] | None:
    if f"{leoflow_server.VARIABLES[kind]}{key.upper()}" in os.environ:
        # As in Leoflow, the environment takes precedence; Airflow would ask its own backend first.
        return None
    try:
        return leoflow_server.read(kind, key)
    except leoflow_server.NotRunning:
        return None
    except AirflowRuntimeError as error:
        raise RuntimeError(str(error)) from None
