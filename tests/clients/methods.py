"""Calls every method of every class of Apache Airflow's official Python client, apache-airflow-client.

    python methods.py URL USERNAME PASSWORD

A method works when it returns, or raises what Airflow refuses on purpose. The exit code is 1 when one does not."""

import importlib
import inspect
import pkgutil
import sys
import typing

import airflow_client.client as client
import world
from airflow_client.client import api
from pydantic import BaseModel

# Of these the client has forms of its own: with the headers, and unread.
VARIANTS = ("_with_http_info", "_without_preload_content")


def main(url, username, password, *_):
    there = world.World(url, username, password)
    there.prepare()
    methods = [
        (kind, name, method)
        for module in pkgutil.iter_modules(api.__path__)
        for kind in vars(importlib.import_module(f"{api.__name__}.{module.name}")).values()
        if inspect.isclass(kind) and kind.__module__ == f"{api.__name__}.{module.name}"
        for name, method in inspect.getmembers(kind, inspect.isfunction)
        if not name.startswith("_") and not name.endswith(VARIANTS)
    ]
    methods.sort(key=lambda one: world.place(one[1], len(inspect.signature(one[2]).parameters)))
    wrong = []
    for kind, name, method in methods:
        problem = call(there, kind, name, method)
        if problem:
            wrong.append(f"{kind.__name__}.{name}: {problem}")
    return world.report("methods of the official client", wrong, len(methods))


def call(there, kind, name, method):
    """What is wrong with it, if anything is."""
    with client.ApiClient(client.Configuration(host=there.url, access_token=there.token)) as connected:
        try:
            getattr(kind(connected), name)(**arguments(there, name, method))
        except client.ApiException as error:
            return None if error.status in world.REFUSED.get(name, []) else f"{error.status} {str(error.body)[:300]}"
        except Exception as error:
            return f"{type(error).__name__}: {str(error)[:300]}"
        finally:
            if name == "logout":
                # The token is good no more.
                there.log_in()
    return None


def arguments(there, name, method):
    ids, queries = there.ids(name), world.QUERIES.get(name, {})
    hints = typing.get_type_hints(method)
    found = {}
    for parameter in inspect.signature(method).parameters.values():
        is_given = parameter.name == "self" or parameter.name in queries
        if is_given or parameter.default is not inspect.Parameter.empty:
            continue
        if parameter.name in ids:
            wanted = str(ids[parameter.name])
            found[parameter.name] = int(wanted) if is_whole(hints[parameter.name]) else wanted
        else:
            found[parameter.name] = body(hints[parameter.name], world.BODIES[name])
    return {**found, **queries}


def is_whole(hint):
    return hint is int or any(is_whole(one) for one in typing.get_args(hint))


def body(hint, value):
    return hint.from_dict(value) if inspect.isclass(hint) and issubclass(hint, BaseModel) else value


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
