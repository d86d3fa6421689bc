"""Preloads Airflow's SDK into a warm Python."""

from __future__ import annotations

import importlib
import sys

from leoflow.sdk import logs, named_classes
from leoflow.sdk.plugins import mentions, run_listeners

# Modules that every try and every parse of a DAG file uses.
MODULES = (
    "airflow.sdk", "airflow.settings", "airflow.sdk.execution_time.comms", "airflow.sdk.execution_time.task_runner",
    "airflow.sdk.execution_time.supervisor", "airflow.sdk.execution_time.context", "airflow.sdk.execution_time.xcom",
    "airflow.sdk.execution_time.macros", "airflow.sdk.execution_time.secrets", "airflow.sdk.execution_time.timeout",
    "airflow.sdk.execution_time.lazy_sequence", "airflow.sdk.definitions.decorators", "airflow.sdk.definitions.mappedoperator",
    "airflow.sdk.definitions.asset.metadata", "airflow.sdk.plugins_manager", "airflow.sdk.serde", "airflow.timetables.base",
    "airflow.providers.standard.operators.bash", "airflow.providers.standard.operators.python",
    "airflow.providers.standard.operators.empty", "airflow.providers.standard.decorators.bash",
    "airflow.sdk._shared.logging.factory", "airflow.sdk._shared.logging.remote", "airflow.sdk.definitions.timetables.interval",
    "airflow.sdk.definitions.timetables.simple", "airflow.sdk.definitions.timetables.trigger",
    "airflow.utils.net", "encodings.idna", "jinja2.ext", "jinja2.nativetypes", "jinja2.sandbox", "setproctitle",
)
NAMES = ("DAG", "BaseOperator", "BaseHook", "Asset", "Variable", "Connection", "Param", "TaskGroup", "XComArg", "dag", "task")
OURS = ("backend", "child_processes", "dag_file", "logs", "messages.assets", "messages.models", "messages.states",
        "messages.xcoms", "named_classes", "plugins.mentions", "plugins.operator_links", "plugins.run_listeners",
        "refusals", "settings", "startup", "structure", "supervisor", "task_try", "definitions.timetables", "tracing")


def preload_all() -> bool:
    """Preloads all modules; skips modules that are not installed. Returns True if settings name classes, which were not
    loaded: a fork must then re-execute itself to load them."""
    with named_classes.hide_settings() as names_a_class:
        load_all()
    return names_a_class


def load_all():
    ours = [*(f"leoflow.sdk.{name}" for name in OURS), *(f"leoflow.entry.{name}" for name in ("ask", "dotenv", "parse", "task"))]
    for name in (*MODULES, *ours):
        try:
            importlib.import_module(name)
        except ModuleNotFoundError:
            continue
        except Exception as error:
            sys.stderr.write(f"failed to preload {name}: {error!r}\n")
    import airflow.sdk

    for name in NAMES:
        getattr(airflow.sdk, name, None)
    find_plugins()
    logs.configure()


def find_plugins():
    """Fills Airflow's caches of plugin entry points, because finding them reads the metadata of every installed
    package."""
    for name in ("airflow.sdk._shared.module_loading", "airflow.sdk._shared.plugins_manager"):
        module = sys.modules.get(name)
        entry_points = getattr(module, "entry_points_with_dist", None)
        if entry_points is not None:
            list(entry_points("airflow.plugins"))
            break
    if mentions.in_packages(run_listeners.WORD):
        # The listener manager of DAG runs has a cache of its own.
        entry_points = getattr(sys.modules.get("airflow._shared.module_loading"), "entry_points_with_dist", list)
        list(entry_points("airflow.plugins"))
