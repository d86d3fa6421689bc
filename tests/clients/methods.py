"""Calls every method of every class of Apache Airflow's official Python client, apache-airflow-client.

    python methods.py URL USERNAME PASSWORD

A method works if it returns, or fails with a status in `fixtures.REFUSED`. The exit code is 1 if a method does not
work."""

import importlib
import inspect
import pkgutil
import sys
import typing

import airflow_client.client as client
import fixtures
from airflow_client.client import api
from pydantic import BaseModel

# Suffixes of the variants of each method that return headers or undecoded answers.
VARIANTS = ("_with_http_info", "_without_preload_content")


def main(url, username, password, *_):
    server = fixtures.Server(url, username, password)
    server.prepare()
    methods = [
        (kind, name, method)
        for module in pkgutil.iter_modules(api.__path__)
        for kind in vars(importlib.import_module(f"{api.__name__}.{module.name}")).values()
        if inspect.isclass(kind) and kind.__module__ == f"{api.__name__}.{module.name}"
        for name, method in inspect.getmembers(kind, inspect.isfunction)
        if not name.startswith("_") and not name.endswith(VARIANTS)
    ]
    methods.sort(key=lambda entry: fixtures.sort_key(entry[1], len(inspect.signature(entry[2]).parameters)))
    wrong = []
    for kind, name, method in methods:
        problem = call(server, kind, name, method)
        if problem:
            wrong.append(f"{kind.__name__}.{name}: {problem}")
    return fixtures.report("methods of the official client", wrong, len(methods))


def call(server, kind, name, method):
    """Calls a method; returns an error message, or None."""
    with client.ApiClient(client.Configuration(host=server.url, access_token=server.token)) as connected:
        try:
            getattr(kind(connected), name)(**arguments(server, name, method))
        except client.ApiException as error:
            return None if error.status in fixtures.REFUSED.get(name, []) else f"{error.status} {str(error.body)[:300]}"
        except Exception as error:
            return f"{type(error).__name__}: {str(error)[:300]}"
        finally:
            if name == "logout":
                # The token is no longer valid.
                server.log_in()
    return None


def arguments(server, name, method):
    ids, queries = server.ids(name), fixtures.QUERIES.get(name, {})
    hints = typing.get_type_hints(method)
    found = {}
    for parameter in inspect.signature(method).parameters.values():
        is_given = parameter.name == "self" or parameter.name in queries
        if is_given or parameter.default is not inspect.Parameter.empty:
            continue
        if parameter.name in ids:
            text = str(ids[parameter.name])
            found[parameter.name] = int(text) if is_whole(hints[parameter.name]) else text
        else:
            found[parameter.name] = body(hints[parameter.name], fixtures.BODIES[name])
    return {**found, **queries}


def is_whole(hint):
    return hint is int or any(is_whole(argument) for argument in typing.get_args(hint))


def body(hint, value):
    return hint.from_dict(value) if inspect.isclass(hint) and issubclass(hint, BaseModel) else value


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
