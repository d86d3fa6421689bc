"""Variables and Connections: of the environment first, then of Leoflow's own store."""

import json
import os
import sys

from ._client import Client, ServerError, quote
from ._errors import AirflowNotFoundException, AirflowRuntimeError, Unsupported

_client = None
_prefix = "/local"
_asked = False
_UNSET = object()
# What was read that is nobody else's to see, in the forms in which it may be written down.
_secrets = set()
# Where the keeper of this task hears of them, so that they are hidden in what other programs print too.
_keeper = None
# Airflow's lists: parts of names, and the shortest that is hidden.
SENSITIVE = ("access_key", "access_token", "api_key", "apikey", "auth_header", "authorization", "bearer",
             "connection_string", "dsn", "keyfile_dict", "passphrase", "passwd", "password", "private_key", "proxies",
             "proxy", "secret", "service_account", "service_key", "token", "webhook_url")
SHORTEST = 5


def is_sensitive(name):
    return any(part in name.lower() for part in SENSITIVE)


def note_secret(name, value):
    """Remembers a value that is secret by its name, or one inside of it."""
    if isinstance(value, dict):
        for key, one in value.items():
            note_secret(key, one)
    elif isinstance(value, (list, tuple)):
        for one in value:
            note_secret(name, one)
    elif isinstance(value, str) and is_sensitive(name):
        mask(value)


def mask(value):
    """Hides a value from here on, wherever this task shows it."""
    if len(value) < SHORTEST or value.lower() == "airflow" or value in _secrets:
        return
    _secrets.add(value)
    if not value.isalnum() or not value.isascii():
        import urllib.parse

        _secrets.update((urllib.parse.quote(value, safe=""), urllib.parse.quote_plus(value), repr(value)[1:-1],
                         json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1]))
    if _keeper is not None:
        try:
            os.write(_keeper, json.dumps(value).encode() + b"\n")
        except OSError:
            # It is gone, and this task with it in a moment.
            pass


def mask_secret(secret, name=None):
    """<https://airflow.apache.org/docs/apache-airflow/stable/security/secrets/mask-sensitive-values.html>"""
    if isinstance(secret, dict):
        for key, one in secret.items():
            mask_secret(one, key)
    elif isinstance(secret, (list, tuple)):
        for one in secret:
            mask_secret(one, name)
    elif isinstance(secret, str) and (not name or is_sensitive(name)):
        mask(secret)


def tell_secrets_to(descriptor):
    """Where a keeper listens. No child of this process has to do with it."""
    global _keeper
    import stat

    try:
        if stat.S_ISFIFO(os.fstat(descriptor).st_mode):
            os.set_inheritable(descriptor, False)
            _keeper = descriptor
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
            note_secret(name[len("AIRFLOW_VAR_"):], value)


def hide(text):
    """The text without the secrets that were read."""
    for secret in sorted(_secrets, key=len, reverse=True):
        text = text.replace(secret, "***")
    return text


def use(socket, token=None, patience=None):
    """`token` is a running task's own; without one the server knows us by our user. `patience` in seconds."""
    global _client, _prefix
    _client = Client(socket, token, patience)
    _prefix = "/task" if token else "/local"


def client():
    if _client is None:
        raise AirflowRuntimeError("Variables and Connections of Leoflow can only be read while Leoflow runs it")
    return _client


def was_asked():
    """Whether anything was read: then what came of it may be different another time."""
    return _asked


def is_offline():
    """Whether there is no Leoflow to ask, as for `validate` and `dags test`."""
    return _prefix == "/local" and not os.path.exists(client().path)


def read(kind, key):
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


class NotRunning(AirflowRuntimeError):
    """There is no Leoflow to ask."""


class Variable:
    """<https://airflow.apache.org/docs/apache-airflow/stable/core-concepts/variables.html>"""

    @classmethod
    def get(cls, key, default=_UNSET, deserialize_json=False, default_var=_UNSET):
        value = os.environ.get(f"AIRFLOW_VAR_{key.upper()}")
        if value is None:
            # The older name of the same argument.
            default = default_var if default is _UNSET else default
            try:
                found = read("variables", key)
            except NotRunning as error:
                if default is _UNSET:
                    raise
                sys.stderr.write(f"warning: {error}; its default is used\n")
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
    def set(cls, key, value, description=None, serialize_json=False):
        if not serialize_json and not isinstance(value, (str, type(None))):
            raise TypeError(f"the value of Variable {key!r} is a {type(value).__name__}; serialize_json=True stores it")
        text = json.dumps(value, indent=2) if serialize_json else str(value)
        write("PUT", key, {"value": text, "description": description})

    @classmethod
    def delete(cls, key):
        write("DELETE", key, None)


def write(method, key, body):
    if _prefix != "/task":
        raise Unsupported("changing a Variable outside of a running task")
    try:
        client().request(method, f"{_prefix}/variables/{quote(key)}", body)
    except ServerError as error:
        raise AirflowRuntimeError(f"variable {key!r} cannot be changed: {error}") from None


class Connection:
    """<https://airflow.apache.org/docs/apache-airflow/stable/howto/connection.html>"""

    def __init__(self, conn_id, conn_type=None, description=None, host=None, login=None, password=None, schema=None,
                 port=None, extra=None):
        self.conn_id = conn_id
        self.conn_type = conn_type
        self.description = description
        self.host = host
        self.login = login
        self.password = password
        self.schema = schema
        self.port = port
        self.extra = json.dumps(extra) if isinstance(extra, dict) else extra
        note_secret("password", password)
        try:
            note_secret("extra", json.loads(self.extra) if self.extra else None)
        except ValueError:
            # Not everybody's extra is JSON.
            pass

    @classmethod
    def get(cls, conn_id):
        text = os.environ.get(f"AIRFLOW_CONN_{conn_id.upper()}")
        if text is not None:
            return cls.from_text(conn_id, text)
        found = read("connections", conn_id)
        if found is None:
            raise AirflowNotFoundException(f"The conn_id `{conn_id}` isn't defined")
        names = ("conn_type", "description", "host", "login", "password", "schema", "port", "extra")
        return cls(conn_id, **{name: found.get(name) for name in names})

    @classmethod
    def from_text(cls, conn_id, text):
        """A connection as an environment variable holds it: JSON, or a URI."""
        if text.lstrip().startswith("{"):
            given = json.loads(text)
            given.pop("conn_id", None)
            return cls(conn_id, **given)
        import urllib.parse

        parts = urllib.parse.urlsplit(text)
        unquote = urllib.parse.unquote
        query = dict(urllib.parse.parse_qsl(parts.query, keep_blank_values=True))
        return cls(
            conn_id,
            conn_type=parts.scheme.replace("-", "_"),
            host=unquote(parts.hostname) if parts.hostname else None,
            login=unquote(parts.username) if parts.username else None,
            password=unquote(parts.password) if parts.password else None,
            schema=unquote(parts.path.lstrip("/")) or None,
            port=parts.port,
            extra=query.pop("__extra__", None) or (query or None),
        )

    @property
    def extra_dejson(self):
        return json.loads(self.extra) if self.extra else {}

    def get_uri(self):
        import urllib.parse

        quoted = lambda text: urllib.parse.quote(str(text), safe="")
        uri = f"{(self.conn_type or '').lower().replace('_', '-')}://"
        if self.login or self.password:
            uri += quoted(self.login or "") + (f":{quoted(self.password)}" if self.password else "") + "@"
        uri += quoted(self.host or "") + (f":{self.port}" if self.port else "")
        if self.schema or self.extra:
            uri += f"/{quoted(self.schema or '')}"
        if self.extra:
            flat = self.extra_dejson
            plain = all(isinstance(value, str) for value in flat.values())
            uri += "?" + urllib.parse.urlencode(flat if plain else {"__extra__": self.extra})
        return uri

    def __repr__(self):
        return f"<Connection {self.conn_id!r}>"


class TaskXComs:
    """XComs of a running task, kept by the server."""

    def push(self, key, value):
        from ._values import NotStorable, encode

        if not isinstance(key, str) or not key:
            raise ValueError(f"XCom key must be a non-empty string. Received: {key!r}")
        try:
            body = {"key": key, "value_json": encode(key, value)}
        except NotStorable as error:
            raise TypeError(str(error)) from None
        try:
            client().request("POST", "/task/xcoms/push", body)
        except ServerError as error:
            raise AirflowRuntimeError(f"XCom {key!r} cannot be pushed: {error}") from None

    def pull(self, dag_id, run_id, task_ids, key, map_indexes, prior):
        """Triples of task_id, map index and value, in order. `map_indexes` None: all of them."""
        from ._values import decode

        body = {"dag_id": dag_id, "run_id": run_id, "task_ids": task_ids, "key": key, "map_indexes": map_indexes,
                "include_prior_dates": prior}
        try:
            found = client().request("POST", "/task/xcoms/pull", body)
        except ServerError as error:
            raise AirflowRuntimeError(f"XCom {key!r} cannot be pulled: {error}") from None
        return [(entry["task_id"], entry["map_index"], decode(entry["value_json"])) for entry in found]
