"""The one connection of this process to the server, and what is read and written over it by name."""

from __future__ import annotations

import os
import time

from leoflow.common.client import Client, ServerError, quote
from leoflow.common.exceptions import AirflowRuntimeError, Unsupported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_client = None
_prefix = "/local"
_asked = False


def use(socket: str, token: str | None = None, patience: float | None = None) -> None:
    """`token` is a running task's own; without one the server knows us by our user. `patience` in seconds."""
    global _client, _prefix
    _client = Client(socket, token, patience)
    _prefix = "/task" if token else "/local"


def client() -> Client:
    if _client is None:
        raise AirflowRuntimeError("Variables and Connections of Leoflow can only be read while Leoflow runs it")
    return _client


def was_asked() -> bool:
    """Whether anything was read: then what came of it may be different another time."""
    return _asked


def is_offline() -> bool:
    """Whether there is no Leoflow to ask, as for `validate` and `dags test`."""
    return _prefix == "/local" and not os.path.exists(client().path)


def read(kind: str, key: str) -> dict[str, Any] | None:
    """The entry, or None when there is none."""
    global _asked
    _asked = True
    if is_offline():
        raise NotRunning(f"{kind} {key!r} cannot be read: Leoflow is not running (`leoflow lite start`)")
    try:
        return client().request("GET", f"{_prefix}/{kind}/{quote(key)}")
    except ServerError as error:
        if error.status == 404:
            return None
        raise AirflowRuntimeError(f"{kind} {key!r} cannot be read: {error}") from None


def uv() -> str:
    """The path of a uv that the server has, or gets now."""
    if is_offline():
        raise NotRunning("there is no uv here, which makes virtual environments: install it (https://docs.astral.sh/uv), "
                         "or start Leoflow, which gets one (`leoflow lite start`)")
    try:
        while (found := client().request("POST", f"{_prefix}/uv")["program"]) is None:
            time.sleep(0.5)
        return found
    except ServerError as error:
        raise AirflowRuntimeError(str(error)) from None


class NotRunning(AirflowRuntimeError):
    """There is no Leoflow to ask."""


def write(method: str, key: str, body: dict[str, Any] | None) -> None:
    if _prefix != "/task":
        raise Unsupported("changing a Variable outside of a running task")
    try:
        client().request(method, f"{_prefix}/variables/{quote(key)}", body)
    except ServerError as error:
        raise AirflowRuntimeError(f"variable {key!r} cannot be changed: {error}") from None
