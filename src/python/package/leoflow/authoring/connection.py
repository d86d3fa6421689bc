"""Connections, read from the secrets backend, then from environment variables and then from Leoflow's datastore."""

from __future__ import annotations

import json
import os

from leoflow.common.exceptions import AirflowException, AirflowNotFoundException, Unsupported
from leoflow.common.hints.commands import command
from leoflow.common.leoflow_server import read
from leoflow.common.masking import mask_sensitive
from leoflow.common.settings import secrets_backend

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, ClassVar

FIELDS = ("conn_type", "description", "host", "login", "password", "schema", "port", "extra")


class Connection:
    """<https://airflow.apache.org/docs/apache-airflow/stable/howto/connection.html>

    Has the methods of both `airflow.sdk.Connection` and `airflow.models.Connection`."""

    EXTRA_KEY = "__extra__"
    # Hook classes by connection type; `hooks.py` adds them.
    hooks: ClassVar[dict[str, Callable[..., Any]]] = {}

    def __init__(self, conn_id=None, conn_type=None, description=None, host=None, login=None, password=None, schema=None,
                 port=None, extra=None, uri=None):
        if uri is not None:
            if any((conn_type, host, login, password, schema, port, extra)):
                raise AirflowException(
                    "You must create an object using the URI or individual values (conn_type, host, login, password, schema, "
                    "port or extra). You can't mix these two ways to create this object."
                )
            self._set(conn_id, {"description": description, **parsed_uri(uri)})
            return
        self._set(conn_id, {
            "conn_type": conn_type, "description": description, "host": host, "login": login, "password": password, "schema": schema,
            "port": port, "extra": extra if extra is None or isinstance(extra, str) else json.dumps(extra),
        })

    def _set(self, conn_id, fields):
        self.conn_id = conn_id
        for name in FIELDS:
            setattr(self, name, fields.get(name))
        mask_sensitive("password", self.password)
        try:
            mask_sensitive("extra", json.loads(self.extra) if self.extra else None)
        except ValueError:
            # `extra` may be any text.
            pass

    # --- reading

    @classmethod
    def get(cls, conn_id: str) -> Connection:
        value = secrets_backend.find("connections", conn_id)
        if value is not None:
            return cls.from_value(conn_id, value)
        text = os.environ.get(f"AIRFLOW_CONN_{conn_id.upper()}")
        if text is not None:
            return cls.from_text(conn_id, text)
        stored = read("connections", conn_id)
        if stored is None:
            raise AirflowNotFoundException(f"The conn_id `{conn_id}` isn't defined (create it with `{command('connections add')}`, or "
                                           f"set AIRFLOW_CONN_{conn_id.upper()} in the project's .env)")
        return cls(conn_id, **{name: stored.get(name) for name in FIELDS})

    get_connection_from_secrets = get

    @classmethod
    async def async_get(cls, conn_id: str) -> Connection:
        import asyncio

        return await asyncio.to_thread(cls.get, conn_id)

    @classmethod
    def from_text(cls, conn_id: str, text: str) -> Connection:
        """Parses the value of an environment variable: JSON or a URI."""
        if text.lstrip().startswith("{"):
            return cls.from_json(text, conn_id)
        return cls.from_uri(text, conn_id)

    @classmethod
    def from_value(cls, conn_id: str, value: Any) -> Connection:
        """Returns the connection that a file of the secrets backend describes: a text, or an object with fields."""
        if isinstance(value, list) and len(value) == 1:
            value = value[0]
        if isinstance(value, str):
            return cls.from_text(conn_id, value)
        if not isinstance(value, dict):
            raise AirflowException(f"The connection {conn_id!r} of the secrets backend is a {type(value).__name__}, no text or object")
        fields = {"extra" if name == "extra_dejson" else name: field for name, field in value.items()}
        unknown = sorted(fields.keys() - {"conn_id", "uri", *FIELDS})
        if unknown or len(fields) < len(value):
            problem = f"has the unknown field {unknown[0]!r}" if unknown else "has both extra and extra_dejson"
            raise AirflowException(f"The connection {conn_id!r} of the secrets backend {problem}")
        if fields.pop("conn_id", conn_id) != conn_id:
            raise AirflowException(f"The connection {conn_id!r} of the secrets backend has another conn_id")
        return cls(conn_id, **fields)

    @classmethod
    def from_uri(cls, uri: str, conn_id: str | None = None) -> Connection:
        return cls(conn_id, uri=uri)

    @classmethod
    def from_json(cls, value: str, conn_id: str | None = None) -> Connection:
        # Imported here, because few tasks use connections.
        from leoflow.authoring.connection_uri import normalized_type

        fields = json.loads(value)
        # The argument `conn_id` takes precedence.
        stored_id = fields.pop("conn_id", None)
        if fields.get("conn_type"):
            fields["conn_type"] = normalized_type(fields["conn_type"])
        port = fields.pop("port", None)
        if port:
            try:
                fields["port"] = int(port)
            except ValueError:
                raise ValueError(f"Expected integer value for `port`, but got {port!r} instead.") from None
        return cls(stored_id if conn_id is None else conn_id, **fields)

    # --- fields

    @property
    def extra_dejson(self) -> dict[str, Any]:
        return self.get_extra_dejson()

    def get_extra_dejson(self, nested: bool = False) -> dict[str, Any]:
        """Returns the parsed `extra`. With `nested`, also parses its values that are JSON text."""
        try:
            fields = json.loads(self.extra) if self.extra else {}
        except ValueError:
            # Imported here, because the import is slow.
            import logging

            # The error is not logged: its message may contain `extra`.
            logging.getLogger("airflow.sdk.definitions.connection").error(
                "Failed to deserialize extra property `extra`, returning empty dictionary")
            return {}
        if nested and isinstance(fields, dict):
            fields = {name: _json_or_text(value) for name, value in fields.items()}
        mask_sensitive("extra", fields)
        return fields

    def get_password(self) -> str | None:
        return self.password

    def get_extra(self) -> str | None:
        return self.extra

    def get_uri(self) -> str:
        from leoflow.authoring.connection_uri import uri_of

        return uri_of(self)

    async def aget_uri(self) -> str:
        return self.get_uri()

    def to_dict(self, *, prune_empty: bool = False, validate: bool = True) -> dict[str, Any]:
        names = [name for name in FIELDS if name != "extra"]
        fields = {"conn_id": self.conn_id, **{name: getattr(self, name) for name in names}}
        if prune_empty:
            fields = {name: value for name, value in fields.items() if value is not None}
        extra = self.extra_dejson
        if extra or not prune_empty:
            fields["extra"] = extra
        if validate:
            json.dumps(fields)
        return fields

    def as_json(self) -> str:
        fields = self.to_dict(prune_empty=True, validate=False)
        fields.pop("conn_id", None)
        return json.dumps(fields)

    # --- hooks

    def get_hook(self, *, hook_params: dict[str, Any] | None = None) -> Any:
        hook = self.hooks.get(self.conn_type)
        if hook is not None:
            return hook(self.conn_id, **(hook_params or {}))
        from leoflow.common.hints.packages import add_command

        raise Unsupported(
            f"the hook of a connection of type {self.conn_type!r} (hooks come with provider packages: add the package to the "
            f"project, for example {add_command('apache-airflow-providers-http')})")

    def test_connection(self) -> tuple[bool, str]:
        try:
            hook = self.get_hook()
        except Exception as error:
            return False, str(error)
        test = getattr(hook, "test_connection", None)
        if test is None:
            return False, f"Hook {type(hook).__name__} doesn't implement or inherit test_connection method"
        return test()

    def __repr__(self):
        return f"<Connection {self.conn_id!r}>"


def parsed_uri(uri):
    from leoflow.authoring.connection_uri import fields_of

    return fields_of(uri)


def _json_or_text(value):
    try:
        return json.loads(value) if isinstance(value, str) else value
    except ValueError:
        return value
