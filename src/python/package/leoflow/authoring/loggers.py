"""Loggers with Airflow's names, because its web UI filters by them."""

from __future__ import annotations

import logging

from leoflow.names import MODULES

# The modules of the decorated operators, which MODULES does not list because no DAG file imports them.
DECORATED = {
    "_BashDecoratedOperator": "bash", "_BranchExternalPythonDecoratedOperator": "branch_external_python",
    "_BranchPythonDecoratedOperator": "branch_python", "_BranchPythonVirtualenvDecoratedOperator": "branch_virtualenv",
    "_PythonDecoratedOperator": "python", "_PythonExternalDecoratedOperator": "external_python",
    "_PythonVirtualenvDecoratedOperator": "python_virtualenv", "_ShortCircuitDecoratedOperator": "short_circuit",
    "DecoratedSensorOperator": "sensor",
}


def qualified_name(kind: type) -> str:
    """Returns `module.name` of a class; for a class of this package, that of its counterpart in Airflow."""
    if kind.__module__.partition(".")[0] != "leoflow":
        return f"{kind.__module__}.{kind.__name__}"
    name = getattr(kind, "airflow_name", kind.__name__)
    if name in DECORATED:
        return f"airflow.providers.standard.decorators.{DECORATED[name]}.{name}"
    modules = [module for module, names in MODULES.items() if kind.__name__ in names and module.startswith("airflow.")]
    # The deepest module defines the name; the others re-export it.
    module = max(modules, key=lambda name_of_module: name_of_module.count("."), default=kind.__module__)
    return f"{module}.{name}"


def operator_logger(kind: type, name: str | None) -> logging.Logger:
    """Returns the logger of an operator class. `name` is the task's argument `logger_name`, or None."""
    return logging.getLogger(f"airflow.task.operators.{name or qualified_name(kind)}")


def hook_logger(kind: type, name: str | None) -> logging.Logger:
    """Returns the logger of a hook class. `name` is the hook's argument `logger_name`, or None."""
    return logging.getLogger(f"airflow.task.hooks.{name or qualified_name(kind)}")
