"""Connections as URIs.

<https://airflow.apache.org/docs/apache-airflow/stable/howto/connection.html#uri-format>
"""

from __future__ import annotations

import json
import urllib.parse

from leoflow.common.exceptions import AirflowException

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# Query parameter for an extra that is not a flat mapping of texts.
EXTRA_KEY = "__extra__"


def normalized_type(conn_type: str) -> str:
    return "postgres" if conn_type == "postgresql" else conn_type.replace("-", "_")


def fields_of(uri: str) -> dict[str, Any]:
    """Parses a URI; returns the fields of a connection. As in Airflow, the host may have a protocol of its own:
    `http://https://example.org`."""
    protocols = uri.count("://")
    conn_type = urllib.parse.urlsplit(uri).scheme
    rest = uri[len(conn_type):].removeprefix(":")
    protocol = None
    if protocols > 1:
        rest = rest.removeprefix("//")
        before = rest.partition("://")[0]
        if protocols > 2 or "@" in before or ":" in before:
            # The message does not quote the URI, which may contain a password.
            raise AirflowException("Invalid connection string: it has more than one ://, and a host may have one protocol only.")
        protocol = before
    parts = urllib.parse.urlsplit(rest)
    unquote = urllib.parse.unquote
    host = host_of(parts)
    query = dict(urllib.parse.parse_qsl(parts.query, keep_blank_values=True))
    return {
        "conn_type": normalized_type(conn_type), "host": f"{protocol}://{host}" if protocol and host else host,
        "login": parts.username and unquote(parts.username), "password": parts.password and unquote(parts.password),
        "schema": unquote(parts.path[1:]), "port": port_of(parts),
        "extra": query[EXTRA_KEY] if EXTRA_KEY in query else json.dumps(query) if query else None,
    }


def port_of(parts):
    try:
        return parts.port
    except ValueError:
        # Python's error is hidden: it quotes the port, which is the password in a URI without @ and host.
        raise AirflowException("Invalid connection string: its port is not a number; a login and a password end with @.") from None


def host_of(parts):
    """Returns the host in lower case; a host that is a path, for example of a socket, keeps its case."""
    host = urllib.parse.unquote(parts.hostname or "")
    if "/" not in host:
        return host
    return urllib.parse.unquote(parts.netloc.rpartition("@")[2].partition(":")[0])


def quoted(text):
    return urllib.parse.quote(text, safe="")


def uri_of(connection: Any) -> str:
    """Returns the URI of a connection, in the form that Airflow writes."""
    conn_type, host, login, password = connection.conn_type, connection.host, connection.login, connection.password
    port, schema = connection.port, connection.schema
    protocol, separator, rest = (host or "").partition("://")
    if separator and protocol != conn_type:
        host, protocol = rest, f"{protocol}://"
    else:
        protocol = ""
    authority = ("" if login is None else quoted(login)) + ("" if password is None else f":{quoted(password)}")
    uri = (f"{conn_type.lower().replace('_', '-')}://" if conn_type else "//") + protocol
    uri += f"{authority}@" if authority else ""
    uri += quoted(host) if host else "" if authority or not port else "@"
    uri += (f":{port}" if port else "") + (f"/{quoted(schema)}" if schema else "")
    if connection.extra:
        uri += ("?" if schema else "/?") + query_of(connection.extra, connection.extra_dejson)
    return uri


def query_of(extra, fields):
    """Encodes the fields of `extra` as a query if parsing it gives the same fields; else encodes the text of `extra` as
    the parameter EXTRA_KEY."""
    try:
        query = urllib.parse.urlencode(fields)
    except TypeError:
        query = ""
    if query and fields == dict(urllib.parse.parse_qsl(query, keep_blank_values=True)):
        return query
    return urllib.parse.urlencode({EXTRA_KEY: extra})
