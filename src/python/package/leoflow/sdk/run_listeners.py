"""Listeners of DAG runs, which plugins of a project or of its packages bring.
<https://airflow.apache.org/docs/apache-airflow/stable/administration-and-deployment/listeners.html>"""

from __future__ import annotations

import datetime
import functools
import importlib.util
import os

from leoflow.common.reports import explain
from leoflow.sdk import startup

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# Hooks by the state that a run has taken.
HOOKS = {"running": "on_dag_run_running", "success": "on_dag_run_success", "failed": "on_dag_run_failed"}
# Providers whose plugins have listeners of DAG runs.
PROVIDERS = ("airflow.providers.openlineage",)
# Why a run has its state where only listeners, and no callbacks of the DAG, are called. The second is a user's mark.
STARTED, MARKED = "started", "marked"


@functools.cache
def exist() -> bool:
    """True when a plugin listens to DAG runs. Plugins are loaded only where one may exist, since that takes time."""
    if not may_exist():
        return False
    hooks = manager().hook
    return any(hook.get_hookimpls() for hook in (getattr(hooks, name, None) for name in HOOKS.values()) if hook is not None)


def may_exist():
    return folder_mentions_hooks() or any(is_installed(name) for name in PROVIDERS) or has_entry_points()


def folder_mentions_hooks():
    from airflow import settings

    for folder, _, names in os.walk(settings.PLUGINS_FOLDER or ""):
        for name in names:
            if name.endswith(".py"):
                with open(os.path.join(folder, name), errors="replace") as file:
                    if "on_dag_run_" in file.read():
                        return True
    return False


def is_installed(name):
    try:
        return importlib.util.find_spec(name) is not None
    except ImportError:
        return False


def has_entry_points():
    from importlib.metadata import entry_points

    return any(entry_points(group="airflow.plugins"))


def manager():
    from airflow.sdk.execution_time import task_runner

    return task_runner.get_listener_manager()


class ListenedRun:
    """A DAG run as listeners see it: the fields of the SDK's model, and those that only Airflow's own model has."""

    clear_number = 0

    def __init__(self, dag, spec, model):
        self.dag = dag
        self.model = model
        # The class of states, where the version of the SDK gives a run one.
        kind = type(getattr(model, "state", spec["state"]))
        self.state = kind(spec["state"])
        self.version_number = spec.get("version_number")
        self.queued_at = date(spec.get("queued_at"))
        self.end_date = date(spec.get("end_date"))

    def __getattr__(self, name):
        return getattr(self.model, name)

    def get_state(self):
        return self.state


def date(text):
    import pydantic

    return None if text is None else pydantic.TypeAdapter(datetime.datetime).validate_python(text)


class Component:
    """What calls the listeners, for the hooks of its start and its end."""


def notify(dag: Any, spec: dict[str, Any]) -> list[str]:
    """Calls the listeners for the run's state; returns the errors."""
    if not exist():
        return []
    hooks = manager().hook
    hook = getattr(hooks, HOOKS[spec["state"]], None)
    if hook is None or not hook.get_hookimpls():
        return []
    nothing = {"map_index": -1, "try_number": 0, "max_tries": 0}
    model = startup.details({**nothing, **spec, "task_id": "", "fileloc": dag.fileloc}, []).ti_context.dag_run
    component, problems = Component(), []
    message = "" if spec["reason"] == MARKED else spec["reason"]
    for call in (
        lambda: hooks.on_starting(component=component),
        lambda: hook(dag_run=ListenedRun(dag, spec, model), msg=message),
        # Waits for what listeners do in the background.
        lambda: hooks.before_stopping(component=component),
    ):
        try:
            call()
        except Exception as error:
            problems.append(explain(error))
    return problems
