"""Context keys of Airflow 2, for templates and for the functions of tasks."""

from __future__ import annotations

import functools
from datetime import timedelta

from leoflow.common import real_sdk
from leoflow.common.dates import template_dates

TYPE_CHECKING = False
if TYPE_CHECKING:
    from datetime import datetime
    from typing import Any

# The keys for each date; for dates other than the logical date, a key with the suffix `_nodash` as well.
KEYS = (
    "execution_date", "next_execution_date",
    *(key + suffix for key in ("yesterday_ds", "tomorrow_ds", "next_ds") for suffix in ("", "_nodash")),
)


def install() -> None:
    if real_sdk.is_active():
        from airflow.sdk.api.datamodels._generated import DagRun
        from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

        original = RuntimeTaskInstance.get_template_context

        @functools.wraps(original)
        def get_template_context(ti):
            context = original(ti)
            context.update(dates(context))
            return context

        RuntimeTaskInstance.get_template_context = get_template_context
        RuntimeTaskInstance.execution_date = property(lambda ti: ti.get_template_context()["execution_date"])
    else:
        from leoflow.running import context
        from leoflow.running.task_instance import DagRun, TaskInstance

        context.other_keys = dates
        TaskInstance.execution_date = property(lambda ti: date_of(ti.dag_run))
    DagRun.execution_date = property(date_of)


def date_of(run: Any) -> datetime:
    """Returns the date of a run. In Airflow 2 each run has a logical date: that of a run without a schedule is the time
    at which it may start."""
    return run.logical_date or run.run_after


def dates(context: Any) -> dict[str, Any]:
    """Returns the values of the keys, and of Airflow 3's keys that a run without a logical date lacks."""
    run = context["dag_run"]
    date = date_of(run)
    is_manual = getattr(run.run_type, "value", run.run_type) == "manual"
    end = date if is_manual else run.data_interval_end or date
    days = (date - timedelta(days=1), date + timedelta(days=1), end)
    formatted = (day.strftime(form) for day in days for form in ("%Y-%m-%d", "%Y%m%d"))
    keys = dict(zip(KEYS, (date, end, *formatted), strict=True))
    if not run.logical_date:
        keys.update(dict.fromkeys(("logical_date", "data_interval_start", "data_interval_end"), date), **template_dates(date))
    return keys
