"""Translates what Airflow 3 removed, for a project with `airflow_2: true` in its `leoflow.yaml`: imports, arguments of DAGs
and operators, and context keys. Works with the small package and with Airflow's SDK."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# Defaults of Airflow 2.
DEFAULTS = {
    # The logical date of a scheduled run is the start of its data interval.
    "AIRFLOW__SCHEDULER__CREATE_CRON_DATA_INTERVALS": "True",
    # DAG files for Cloud Composer read this option, which Airflow 3 removed.
    "AIRFLOW__KUBERNETES__NAMESPACE": "default",
}

_is_installed = False


def install_if(settings: dict[str, Any] | None) -> None:
    """`settings` are those of the project. Call it before the user's code runs."""
    if settings and settings.get("airflow_2"):
        install()


def install() -> None:
    global _is_installed
    if _is_installed:
        return
    _is_installed = True
    from leoflow.airflow_2 import arguments, context, modules

    for variable, value in DEFAULTS.items():
        os.environ.setdefault(variable, value)
    modules.install()
    arguments.install()
    context.install()
