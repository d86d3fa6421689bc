"""This process's client of Leoflow's server, for Variables, Connections and uv."""

from __future__ import annotations

import os
import time

from leoflow.common.client import Client, ServerError, quote
from leoflow.common.exceptions import AirflowRuntimeError, Unsupported
from leoflow.common.hints.commands import command, home, use_home

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# Connections that Airflow creates with its database.
DEFAULT_CONNECTIONS = {"fs_default": {"conn_type": "fs", "extra": '{"path": "/"}'}}

# Prefixes of the environment variables that override stored Variables and Connections.
VARIABLES = {"variables": "AIRFLOW_VAR_", "connections": "AIRFLOW_CONN_"}

_client = None
_prefix = "/local"
_queried = False
# True in a process that Leoflow did not start. It goes on without a server, also if that was killed.
_is_outside = False
# True in a process of triggers, which may change Variables, too.
_is_trigger_host = False


def configure(socket: str, token: str | None = None, retry_seconds: float | None = None) -> None:
    """Sets the server's socket. `token` is that of the running task; without a token, the server identifies the process
    by its user. `retry_seconds` is the time for which a failed request is repeated, in seconds."""
    global _client, _prefix
    _client = Client(socket, token, retry_seconds)
    _prefix = "/task" if token else "/local"


def allow_writes() -> None:
    """Allows this process, which runs triggers, to change Variables."""
    global _is_trigger_host
    _is_trigger_host = True


def client() -> Client:
    # Code in a process that Leoflow did not start, for example in that of pytest, has the server of this package's home.
    own_home = home()
    global _is_outside
    if _client is None and own_home is not None:
        _is_outside = True
        configure(os.path.join(own_home, "run", "api.sock"), retry_seconds=2)
        if own_home not in (os.environ.get("LEOFLOW_HOME"), os.path.expanduser("~/.leoflow")):
            import shlex

            use_home(f"--home {shlex.quote(own_home)}")
    if _client is None:
        raise NotRunning("Leoflow's server is unknown: this Python package is not in a home of Leoflow")
    return _client


def was_queried() -> bool:
    """True if a Variable or Connection was read: the next parse of the file may then have another result."""
    return _queried


def is_offline() -> bool:
    """True if no server is running, which `leoflow validate` and `leoflow dags test` allow."""
    return _prefix == "/local" and not os.path.exists(client().path)


def read(kind: str, key: str) -> dict[str, Any] | None:
    """Returns the fields of a Variable or Connection (`kind` is `variables` or `connections`), or None if it does not
    exist. Raises NotRunning and AirflowRuntimeError."""
    global _queried
    _queried = True
    try:
        if not is_offline():
            return client().request("GET", f"{_prefix}/{kind}/{quote(key)}")
    except ServerError as error:
        if error.status == 404:
            return DEFAULT_CONNECTIONS.get(key) if kind == "connections" else None
        if error.status != 0 or not _is_outside:
            raise AirflowRuntimeError(f"{kind[:-1].capitalize()} {key!r} cannot be read: {error}") from None
    if kind == "connections" and key in DEFAULT_CONNECTIONS:
        return DEFAULT_CONNECTIONS[key]
    raise NotRunning(f"{kind[:-1].capitalize()} {key!r} cannot be read: Leoflow is not running (start it with "
                     f"`{command('lite start')}`, or set {VARIABLES[kind]}{key.upper()} in the project's .env)")


def uv() -> str:
    """Returns the path of the server's uv, which the server downloads if necessary."""
    if is_offline():
        raise NotRunning("uv, which creates virtual environments, is not installed: install it (https://docs.astral.sh/uv), "
                         f"or start Leoflow, which downloads it (`{command('lite start')}`)")
    try:
        while (program := client().request("POST", f"{_prefix}/uv")["program"]) is None:
            time.sleep(0.5)
        return program
    except ServerError as error:
        raise AirflowRuntimeError(str(error)) from None


def has_newer_package(package: str) -> dict[str, Any] | None:
    """Returns the `dag_id` and the `run_id` of the running task if the newest version of its DAG has the package, and the
    run keeps an older version."""
    if _client is None or _prefix != "/task":
        return None
    try:
        # For a hint only, so the task does not wait for a server that does not answer.
        answer = Client(_client.path, _client.token, 5).request("POST", "/task/newer-package", {"name": package})
    except ServerError:
        # The server may be one of an older release, which does not know the request.
        return None
    return answer if answer["exists"] else None


class NotRunning(AirflowRuntimeError):
    """No Leoflow server is running."""


def write(method: str, key: str, body: dict[str, Any] | None) -> None:
    """Changes (`PUT`) or deletes (`DELETE`) a Variable. Raises Unsupported outside of a running task or trigger."""
    prefix = "/local/triggers" if _is_trigger_host else _prefix
    if prefix == "/local":
        raise Unsupported(f"changing a Variable outside of a running task (use `{command('variables set')}`)")
    try:
        client().request(method, f"{prefix}/variables/{quote(key)}", body)
    except ServerError as error:
        raise AirflowRuntimeError(f"variable {key!r} cannot be changed: {error}") from None
