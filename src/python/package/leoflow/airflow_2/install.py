"""Translates what Airflow 3 removed, for a project with `airflow_2: true` in its `leoflow.yaml`: imports, arguments of DAGs
and operators, and context keys. Works with the small package and with Airflow's SDK."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# With it, as in Airflow 2, the logical date of a scheduled run is the start of its data interval.
CRON_INTERVALS = "AIRFLOW__SCHEDULER__CREATE_CRON_DATA_INTERVALS"

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

    os.environ.setdefault(CRON_INTERVALS, "True")
    modules.install()
    arguments.install()
    context.install()
