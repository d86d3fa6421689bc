"""Connections, read from environment variables first and then from Leoflow's datastore."""

from __future__ import annotations

import json
import os

from leoflow.common.exceptions import AirflowNotFoundException
from leoflow.common.leoflow_server import read
from leoflow.common.masking import note_secret


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
            # `extra` may be any text.
            pass

    @classmethod
    def get(cls, conn_id: str) -> Connection:
        text = os.environ.get(f"AIRFLOW_CONN_{conn_id.upper()}")
        if text is not None:
            return cls.from_text(conn_id, text)
        stored = read("connections", conn_id)
        if stored is None:
            raise AirflowNotFoundException(f"The conn_id `{conn_id}` isn't defined")
        names = ("conn_type", "description", "host", "login", "password", "schema", "port", "extra")
        return cls(conn_id, **{name: stored.get(name) for name in names})

    @classmethod
    def from_text(cls, conn_id: str, text: str) -> Connection:
        """Parses the value of an environment variable: JSON or a URI."""
        if text.lstrip().startswith("{"):
            fields = json.loads(text)
            fields.pop("conn_id", None)
            return cls(conn_id, **fields)
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

        def quoted(text):
            return urllib.parse.quote(str(text), safe="")
        uri = f"{(self.conn_type or '').lower().replace('_', '-')}://"
        if self.login or self.password:
            uri += quoted(self.login or "") + (f":{quoted(self.password)}" if self.password else "") + "@"
        uri += quoted(self.host or "") + (f":{self.port}" if self.port else "")
        if self.schema or self.extra:
            uri += f"/{quoted(self.schema or '')}"
        if self.extra:
            fields = self.extra_dejson
            is_flat = all(isinstance(value, str) for value in fields.values())
            uri += "?" + urllib.parse.urlencode(fields if is_flat else {"__extra__": self.extra})
        return uri

    def __repr__(self):
        return f"<Connection {self.conn_id!r}>"
