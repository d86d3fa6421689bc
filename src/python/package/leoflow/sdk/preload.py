"""What a warm Python of an environment with Airflow's own SDK has loaded before anything is asked of it."""

from __future__ import annotations

import importlib
import sys

from leoflow.sdk import logs, named_classes

# Of the SDK, what every try and every parse of a DAG file uses.
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
OURS = ("asset_messages", "child_processes", "dag_file", "logs", "models", "named_classes", "refusals", "settings", "side", "startup",
        "state_messages", "structure", "supervisor", "task_try", "timetables", "xcom_messages")


def everything() -> bool:
    """What is not there in this version, or not installed, is passed over: who needs it hears of it. Returns whether it was
    loaded without classes that settings name, so that a fork has to begin again with them."""
    with named_classes.left_out() as names_any:
        load_all()
    return names_any


def load_all():
    ours = [*(f"leoflow.sdk.{one}" for one in OURS), *(f"leoflow.entry.{one}" for one in ("ask", "dotenv", "parse", "task"))]
    for name in (*MODULES, *ours):
        try:
            importlib.import_module(name)
        except ModuleNotFoundError:
            continue
        except Exception as error:
            sys.stderr.write(f"{name} cannot be loaded ahead: {error!r}\n")
    import airflow.sdk

    for name in NAMES:
        getattr(airflow.sdk, name, None)
    find_plugins()
    logs.configure()


def find_plugins():
    """Which packages bring plugins takes a look at each of them, which is remembered."""
    for place in ("airflow.sdk._shared.module_loading", "airflow.sdk._shared.plugins_manager"):
        found = sys.modules.get(place)
        entry_points = getattr(found, "entry_points_with_dist", None)
        if entry_points is not None:
            list(entry_points("airflow.plugins"))
            return
