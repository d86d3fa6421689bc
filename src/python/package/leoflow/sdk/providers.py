"""The providers of an environment, and what their hooks say of a connection."""

from __future__ import annotations

import importlib
import importlib.metadata

from leoflow.common import masking
from leoflow.common.exceptions import AirflowException

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

GROUP = "apache_airflow_provider"


def installed() -> list[dict[str, Any]]:
    """Each with its name, its version, and the types of connections that it has a hook for, as it describes itself."""
    found = []
    for distribution in importlib.metadata.distributions():
        for entry in distribution.entry_points:
            if entry.group == GROUP:
                found.append(described(entry.load()(), distribution))
    return sorted(found, key=lambda one: one["package_name"])


def described(info, distribution):
    urls = [line.partition(",") for line in distribution.metadata.get_all("Project-URL") or []]
    documentation = next((url.strip() for name, _, url in urls if name.strip().lower() == "documentation"), None)
    return {
        "package_name": info.get("package-name", distribution.name),
        "name": info.get("name", distribution.name),
        "description": info.get("description", "").strip(),
        "version": distribution.version,
        "documentation_url": documentation,
        "connection_types": [
            {"connection_type": one["connection-type"], "hook_class_name": one["hook-class-name"], "hook_name": one.get("hook-name"),
             "fields": one.get("conn-fields") or {}, "behaviour": one.get("ui-field-behaviour") or {}}
            for one in info.get("connection-types", [])
        ],
    }


def hook_class(conn_type):
    for provider in installed():
        for one in provider["connection_types"]:
            if one["connection_type"] == conn_type:
                module, _, name = one["hook_class_name"].rpartition(".")
                return getattr(importlib.import_module(module), name)
    raise AirflowException(f"no provider of this environment has a hook for the type {conn_type!r}")


def test_connection(conn_id: str) -> dict[str, Any]:
    """What the provider's hook says of it: `status`, and a message for people."""
    from airflow.sdk import Connection
    from airflow.sdk.execution_time import task_runner
    from leoflow.sdk.triggers import TriggerSupervisor

    task_runner.SUPERVISOR_COMMS = TriggerSupervisor()
    try:
        kind = hook_class(Connection.get(conn_id).conn_type)
        if not hasattr(kind, "test_connection"):
            return {"status": False, "message": f"Hook {kind.__name__} doesn't implement or inherit test_connection method"}
        status, message = kind(**{getattr(kind, "conn_name_attr", "conn_id"): conn_id}).test_connection()
    except Exception as error:
        # As on Airflow: what a hook raises is its answer.
        status, message = False, str(error)
    return {"status": bool(status), "message": masking.hide(str(message))}
