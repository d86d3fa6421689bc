"""Variables, read from the secrets backend, then from environment variables and then from Leoflow's datastore."""

from __future__ import annotations

import json
import os

from leoflow.common import task_log
from leoflow.common.exceptions import AirflowRuntimeError
from leoflow.common.hints.commands import command
from leoflow.common.leoflow_server import NotRunning, read, write
from leoflow.common.masking import mask_sensitive
from leoflow.common.settings import secrets_backend

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_UNSET = object()


class Variable:
    """<https://airflow.apache.org/docs/apache-airflow/stable/core-concepts/variables.html>"""

    @classmethod
    def get(cls, key: str, default: Any = _UNSET, deserialize_json: bool = False, default_var: Any = _UNSET) -> Any:
        value = secrets_backend.find("variables", key)
        if value is None:
            value = os.environ.get(f"AIRFLOW_VAR_{key.upper()}")
        if value is None:
            # `default_var` is the older name of `default`.
            default = default_var if default is _UNSET else default
            try:
                stored = read("variables", key)
            except NotRunning as error:
                if default is _UNSET:
                    raise
                task_log.log_event("warning", task_log.OWN, f"{error}; using the default")
                stored = None
            if stored is None:
                if default is _UNSET:
                    raise AirflowRuntimeError(f"VARIABLE_NOT_FOUND: Variable {key!r} does not exist (create it with "
                                              f"`{command('variables set')}`, or set AIRFLOW_VAR_{key.upper()} in the project's .env)")
                return default
            value = stored["value"]
        # A file of the secrets backend may have values of other types.
        stored = json.loads(value) if deserialize_json and isinstance(value, str) else value
        mask_sensitive(key, stored)
        return stored

    @classmethod
    def set(cls, key: str, value: Any, description: str | None = None, serialize_json: bool = False) -> None:
        if not serialize_json and not isinstance(value, (str, type(None))):
            raise TypeError(f"the value of Variable {key!r} is a {type(value).__name__}; store it with serialize_json=True")
        text = json.dumps(value, indent=2) if serialize_json else str(value)
        write("PUT", key, {"value": text, "description": description})

    @classmethod
    def delete(cls, key: str) -> None:
        write("DELETE", key, None)
