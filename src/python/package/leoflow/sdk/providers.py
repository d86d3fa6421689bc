"""Lists the installed providers, and tests connections with their hooks."""

from __future__ import annotations

import importlib
import importlib.metadata

from leoflow.common import masking
from leoflow.common.exceptions import AirflowException

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# Group of the entry points that return the description of a provider.
GROUP = "apache_airflow_provider"


def installed() -> list[dict[str, Any]]:
    """Returns the installed providers with name, version and connection types."""
    providers = []
    for distribution in importlib.metadata.distributions():
        for entry in distribution.entry_points:
            if entry.group == GROUP:
                providers.append(provider_fields(entry.load()(), distribution))
    return sorted(providers, key=lambda provider: provider["package_name"])


def provider_fields(info, distribution):
    urls = [line.partition(",") for line in distribution.metadata.get_all("Project-URL") or []]
    documentation = next((url.strip() for name, _, url in urls if name.strip().lower() == "documentation"), None)
    return {
        "package_name": info.get("package-name", distribution.name),
        "name": info.get("name", distribution.name),
        "description": info.get("description", "").strip(),
        "version": distribution.version,
        "documentation_url": documentation,
        "connection_types": [
            {"connection_type": kind["connection-type"], "hook_class_name": kind["hook-class-name"],
             "hook_name": kind.get("hook-name"), "fields": kind.get("conn-fields") or {}, "behaviour": kind.get("ui-field-behaviour") or {}}
            for kind in info.get("connection-types", [])
        ],
    }


def hook_class(conn_type):
    for provider in installed():
        for connection_type in provider["connection_types"]:
            if connection_type["connection_type"] == conn_type:
                module, _, name = connection_type["hook_class_name"].rpartition(".")
                return getattr(importlib.import_module(module), name)
    raise AirflowException(f"no installed provider has a hook for the connection type {conn_type!r}")


def test_connection(conn_id: str) -> dict[str, Any]:
    """Tests a connection with its provider's hook; returns `status` and `message`."""
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
        # As in Airflow, an error of the hook is the message.
        status, message = False, str(error)
    return {"status": bool(status), "message": masking.hide(str(message))}
