"""The structure of a DAG: the JSON-compatible form that the scheduler stores. This module has the attributes with the
same names in the small package and in Airflow's SDK. Most default values are omitted."""

from __future__ import annotations

import datetime
import enum
import math
import re

from leoflow.common.dates import iso, stamp, zone_name
from leoflow.common.settings.airflow_settings import Setting

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def seconds(value):
    return None if value is None else value.total_seconds()


def non_empty(fields):
    """Drops empty values."""
    return {name: value for name, value in fields.items() if value not in (None, False, [], {})}


def unless_none(name: str, value: Any) -> dict[str, Any]:
    return {} if value is None else {name: value}


def unless_default(usual: Any, value: Any) -> Any:
    return None if value == usual else value


# Airflow's default is True; without the setting, Leoflow pauses only DAGs with a schedule.
PAUSED = Setting("core", "dags_are_paused_at_creation", None, bool)


def dag_structure(dag: Any, timetable: Any, own: dict[str, Any], rare: dict[str, Any], tasks: list[dict[str, Any]]) -> dict[str, Any]:
    """Returns the structure of a DAG. `own` and `rare` are fields that the small package and the SDK compute
    differently; empty fields of `rare` are omitted."""
    return {
        "dag_id": dag.dag_id,
        "description": dag.description,
        "doc_md": dag.doc_md,
        "schedule": displayed_schedule(dag, timetable),
        "start_date": iso(dag.start_date),
        "end_date": iso(dag.end_date),
        "catchup": dag.catchup,
        "tags": sorted(dag.tags),
        "owners": sorted({task.owner for task in dag.tasks}),
        "max_active_runs": dag.max_active_runs,
        "max_active_tasks": dag.max_active_tasks,
        "is_paused_upon_creation": PAUSED.value() if dag.is_paused_upon_creation is None else dag.is_paused_upon_creation,
        "timetable": timetable.to_structure(),
        "timetable_summary": str(timetable.summary),
        "timetable_description": timetable.description,
        "timezone": zone_name(dag.timezone),
        "earliest": iso(earliest(dag)),
        "latest": iso(latest(dag)),
        **own,
        **non_empty({
            "dag_display_name": unless_default(dag.dag_id, dag.dag_display_name),
            "dagrun_timeout": seconds(dag.dagrun_timeout),
            "fail_fast": dag.fail_fast,
            "render_template_as_native_obj": dag.render_template_as_native_obj,
            "max_consecutive_failed_dag_runs": dag.max_consecutive_failed_dag_runs,
            "on_success_callback": bool(dag.on_success_callback),
            "on_failure_callback": bool(dag.on_failure_callback),
            "owner_links": dict(dag.owner_links),
            "default_args": shown_defaults(dag.default_args),
            **rare,
        }),
        # False is not omitted, because it overrides a setting of the instance.
        **unless_none("rerun_with_latest_version", getattr(dag, "rerun_with_latest_version", None)),
        "tasks": tasks,
    }


# Members of `default_args` of which Airflow's API shows only that they are set.
ONLY_FLAGS = ("on_execute_callback", "on_failure_callback", "on_retry_callback", "on_skipped_callback", "on_success_callback",
              "retry_policy")


def shown_defaults(defaults: dict[str, Any] | None) -> dict[str, Any]:
    """Returns `default_args` as Airflow's API shows them."""
    shown = {}
    for name, value in (defaults or {}).items():
        if name in ONLY_FLAGS:
            shown.update({f"has_{name}": True} if value else {})
        elif name != "params":
            shown[str(name)] = shown_value(value)
    return shown


def shown_value(value):
    if isinstance(value, enum.Enum):
        return shown_value(value.value)
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, dict):
        return {str(name): shown_value(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [shown_value(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return sorted((shown_value(item) for item in value), key=str)
    if isinstance(value, datetime.timedelta):
        return iso_duration(value)
    if isinstance(value, datetime.datetime):
        return str(stamp(value)).replace("+00:00", "Z")
    # The address of an object differs each time, and would make a new version of the DAG.
    return re.sub(r" at 0x[0-9a-f]+", "", source_of(value) if callable(value) else str(value))


def source_of(function):
    import inspect

    try:
        return inspect.getsource(function)
    except (OSError, TypeError):
        return str(function)


def iso_duration(duration: datetime.timedelta) -> str:
    """Writes a duration as pydantic does, with years of 365 days."""
    sign, duration = ("-", -duration) if duration < datetime.timedelta() else ("", duration)
    years, days = divmod(duration.days, 365)
    hours, rest = divmod(duration.seconds, 3600)
    minutes, seconds = divmod(rest, 60)
    fraction = f".{duration.microseconds:06}".rstrip("0") if duration.microseconds else ""
    date = (f"{years}Y" if years else "") + (f"{days}D" if days else "")
    time = (f"{hours}H" if hours else "") + (f"{minutes}M" if minutes else "") + (f"{seconds}{fraction}S" if seconds or fraction else "")
    return f"{sign}P{date}{f'T{time}' if time else ''}" if date or time else "PT0S"


def displayed_schedule(dag, timetable):
    """Returns the schedule as written if it is a text, else the timetable's summary; None without a schedule."""
    if type(dag.timetable).__name__ == "NullTimetable":
        return None
    return dag.schedule if isinstance(dag.schedule, str) else str(timetable.summary)


def earliest(dag):
    """Returns the earliest start_date of the DAG and its tasks, or None."""
    dates = [date for date in [dag.start_date, *(task.start_date for task in dag.tasks)] if date is not None]
    return min(dates) if dates else None


def latest(dag):
    """Returns the date after which no task may run, or None."""
    ends = [task.end_date for task in dag.tasks]
    if ends and all(end is not None for end in ends):
        return max([*ends, *([dag.end_date] if dag.end_date is not None else [])])
    return dag.end_date


def parent_of(group: Any) -> str | None:
    """Returns the id of a group; None for the DAG's root group."""
    return None if group is None or group.is_root else group.group_id


# Attributes of a group with the ids at the other ends of its edges.
LINKS = ("upstream_group_ids", "downstream_group_ids", "upstream_task_ids", "downstream_task_ids")


def group_structure(group: Any, length: Any, sources: Any) -> dict[str, Any]:
    """Returns the structure of a group. For a mapped group, `length` is the expression for the number of its copies and
    `sources` are the tasks that the expression depends on."""
    return {"group_id": group.group_id, "parent": parent_of(group.parent_group), **non_empty({
        "tooltip": group.tooltip,
        "display_name": group.group_display_name,
        "length": length,
        "sources": sources,
        **{name: sorted(getattr(group, name) - {None}) for name in LINKS},
    })}


def task_structure(task: Any, weight: int, rare: dict[str, Any]) -> dict[str, Any]:
    """Returns the structure of a task. `weight` is the total weight; `rare` as for a DAG."""
    return {
        "task_id": task.task_id,
        "operator": task.task_type,
        "operator_name": task.operator_name or task.task_type,
        "upstream": sorted(task.upstream_task_ids),
        "retries": task.retries,
        "retry_delay": seconds(task.retry_delay),
        "execution_timeout": seconds(task.execution_timeout),
        "owner": task.owner,
        "doc_md": task.doc_md,
        "weight": weight,
        **non_empty({
            "module": operator_module(task),
            "max_retry_delay": seconds(task.max_retry_delay),
            "depends_on_past": task.depends_on_past,
            "wait_for_downstream": task.wait_for_downstream,
            "ignore_first_depends_on_past": task.ignore_first_depends_on_past,
            # Has no effect without `depends_on_past`.
            "wait_for_past_before_skipping": task.depends_on_past and task.wait_for_past_depends_before_skipping,
            "pool": unless_default("default_pool", task.pool),
            "pool_slots": unless_default(1, task.pool_slots),
            "own_weight": unless_default(1, task.priority_weight),
            "max_active_tis_per_dag": task.max_active_tis_per_dag,
            "max_active_tis_per_dagrun": task.max_active_tis_per_dagrun,
            "is_setup": task.is_setup,
            "is_teardown": task.is_teardown,
            "on_failure_fail_dagrun": task.on_failure_fail_dagrun,
            "group": parent_of(task.task_group),
            "template_fields": list(task.template_fields),
            "display_name": unless_default(task.task_id, task.task_display_name),
            **rare,
        }),
    }


# Arguments of a task that a failed try may need, beside the listeners of plugins.
FAILURE_ARGUMENTS = {"email", "on_failure_callback", "on_retry_callback"}


def has_failure_callbacks(task: Any, expanded: Any) -> bool:
    """True if a failed try of a task may have callbacks or an e-mail. `expanded` are the arguments that differ between
    the instances of a mapped task; None if only a try knows them."""
    sends = task.email and (task.email_on_failure or task.email_on_retry)
    calls = sends or task.on_failure_callback or task.on_retry_callback
    return bool(calls or expanded is None or not FAILURE_ARGUMENTS.isdisjoint(expanded))


# Packages of the standard operators, whose modules the server knows.
STANDARD = ("leoflow", "airflow.providers.standard")


def operator_module(task: Any) -> str | None:
    """Returns the module of a task's operator; None for an operator of Airflow's standard provider or its counterpart
    in the small package."""
    kind = getattr(task, "operator_class", None)
    module = (kind if isinstance(kind, type) else type(task)).__module__
    return None if any(module == name or module.startswith(f"{name}.") for name in STANDARD) else module


def is_nothing(task: Any, inherits_from_empty_operator: bool) -> bool:
    """True if the task needs no process: as in Airflow, the scheduler itself marks such a task as successful."""
    return bool(
        inherits_from_empty_operator
        and not task.on_execute_callback
        and not task.on_success_callback
        and not task.outlets
        and not task.inlets
    )
