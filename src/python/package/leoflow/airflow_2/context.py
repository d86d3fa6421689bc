"""Context keys of Airflow 2, for templates and for the functions of tasks."""

from __future__ import annotations

import functools
from datetime import timedelta

from leoflow.common import real_sdk

TYPE_CHECKING = False
if TYPE_CHECKING:
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
        RuntimeTaskInstance.execution_date = property(lambda ti: ti.get_template_context().get("logical_date"))
    else:
        from leoflow.running import context
        from leoflow.running.task_instance import DagRun, TaskInstance

        context.other_keys = dates
        TaskInstance.execution_date = property(lambda ti: ti.dag_run.logical_date)
    DagRun.execution_date = property(lambda run: run.logical_date)


def dates(context: Any) -> dict[str, Any]:
    """Returns the values of the keys; none for a run without a logical date, which Airflow 2 does not have."""
    date = context.get("logical_date")
    if date is None:
        return {}
    end = context.get("data_interval_end") or date
    days = (date - timedelta(days=1), date + timedelta(days=1), end)
    formatted = (day.strftime(form) for day in days for form in ("%Y-%m-%d", "%Y%m%d"))
    return dict(zip(KEYS, (date, end, *formatted), strict=True))
