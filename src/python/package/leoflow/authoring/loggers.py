"""Loggers under the names that they have in Airflow, which is what its web UI filters by."""

from __future__ import annotations

import logging

# The modules of the decorated operators, which no file imports by their names.
DECORATED = {
    "_BashDecoratedOperator": "bash", "_BranchExternalPythonDecoratedOperator": "branch_external_python",
    "_BranchPythonDecoratedOperator": "branch_python", "_BranchPythonVirtualenvDecoratedOperator": "branch_virtualenv",
    "_PythonDecoratedOperator": "python", "_PythonExternalDecoratedOperator": "external_python",
    "_PythonVirtualenvDecoratedOperator": "python_virtualenv", "_ShortCircuitDecoratedOperator": "short_circuit",
    "DecoratedSensorOperator": "sensor",
}


def name_of(kind: type) -> str:
    """A class with its module; of one of this package those of Airflow's that it stands for."""
    if kind.__module__.partition(".")[0] != "leoflow":
        return f"{kind.__module__}.{kind.__name__}"
    name = getattr(kind, "airflow_name", kind.__name__)
    if name in DECORATED:
        return f"airflow.providers.standard.decorators.{DECORATED[name]}.{name}"
    from leoflow.names import MODULES

    places = [module for module, names in MODULES.items() if kind.__name__ in names and module.startswith("airflow.")]
    # The deepest is where Airflow defines it: others pass it on.
    module = max(places, key=lambda place: place.count("."), default=kind.__module__)
    return f"{module}.{name}"


def of_operator(kind: type) -> logging.Logger:
    return logging.getLogger(f"airflow.task.operators.{name_of(kind)}")


def of_hook(kind: type, name: str | None) -> logging.Logger:
    """`name` is what the hook was given for it."""
    return logging.getLogger(f"airflow.task.hooks.{name or name_of(kind)}")
