"""Variables: of the environment first, then of Leoflow's own store."""

from __future__ import annotations

import json
import os

from leoflow.common import task_log
from leoflow.common.exceptions import AirflowRuntimeError
from leoflow.common.leoflow_server import NotRunning, read, write
from leoflow.common.masking import note_secret

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_UNSET = object()


class Variable:
    """<https://airflow.apache.org/docs/apache-airflow/stable/core-concepts/variables.html>"""

    @classmethod
    def get(cls, key: str, default: Any = _UNSET, deserialize_json: bool = False, default_var: Any = _UNSET) -> Any:
        value = os.environ.get(f"AIRFLOW_VAR_{key.upper()}")
        if value is None:
            # The older name of the same argument.
            default = default_var if default is _UNSET else default
            try:
                found = read("variables", key)
            except NotRunning as error:
                if default is _UNSET:
                    raise
                task_log.say("warning", task_log.OWN, f"{error}; its default is used")
                found = None
            if found is None:
                if default is _UNSET:
                    raise AirflowRuntimeError(f"VARIABLE_NOT_FOUND: Variable {key!r} is not there")
                return default
            value = found["value"]
        found = json.loads(value) if deserialize_json else value
        note_secret(key, found)
        return found

    @classmethod
    def set(cls, key: str, value: Any, description: str | None = None, serialize_json: bool = False) -> None:
        if not serialize_json and not isinstance(value, (str, type(None))):
            raise TypeError(f"the value of Variable {key!r} is a {type(value).__name__}; serialize_json=True stores it")
        text = json.dumps(value, indent=2) if serialize_json else str(value)
        write("PUT", key, {"value": text, "description": description})

    @classmethod
    def delete(cls, key: str) -> None:
        write("DELETE", key, None)
