"""Translates what Airflow 3 removed, for a project with `airflow_2` in its `leoflow.yaml`: imports, arguments of DAGs
and operators, and context keys. Works with the small package and with Airflow's SDK."""

from __future__ import annotations

import os

# Settings with which Airflow 2 ran: a run's logical date is the start of its data interval.
SETTINGS = {
    "AIRFLOW__SCHEDULER__CREATE_CRON_DATA_INTERVALS": "True",
    "AIRFLOW__SCHEDULER__CREATE_DELTA_DATA_INTERVALS": "True",
}


def install() -> None:
    """Call it before the user's code runs, once per process."""
    from leoflow.airflow_2 import arguments, context, modules

    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    modules.install()
    arguments.install()
    context.install()
