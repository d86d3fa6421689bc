"""What the scheduler is told of a DAG. What is as it mostly is, is left out."""

from __future__ import annotations

import math
import re

from leoflow.authoring import priority
from leoflow.authoring.assets import Asset, AssetAlias, AssetNameRef, AssetUriRef
from leoflow.authoring.task_group import MappedTaskGroup
from leoflow.common.dates import zone_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from leoflow.authoring.dag import DAG


def iso(value):
    return None if value is None else value.isoformat()


def given(pairs):
    """Without what is nothing."""
    return {name: value for name, value in pairs.items() if value not in (None, False, [], {})}


def of_dag(dag: DAG, steady: bool) -> dict[str, Any]:
    """`steady` is whether its file gives the same DAG whenever it is run."""
    timetable = dag.timetable
    asset_condition = timetable.asset_condition
    return {
        "dag_id": dag.dag_id,
        "description": dag.description,
        "doc_md": dag.doc_md,
        "schedule": None if type(timetable).__name__ == "NullTimetable" else shown_schedule(dag),
        "start_date": iso(dag.start_date),
        "end_date": iso(dag.end_date),
        "catchup": dag.catchup,
        "tags": sorted(dag.tags),
        "params": dag.params.described(),
        "owners": sorted({task.owner for task in dag.tasks}),
        "max_active_runs": dag.max_active_runs,
        "max_active_tasks": dag.max_active_tasks,
        "is_paused_upon_creation": dag.is_paused_upon_creation,
        "timetable": timetable.described(),
        "timetable_summary": str(timetable.summary),
        "timetable_description": timetable.description,
        "timezone": zone_name(dag.timezone),
        "earliest": iso(earliest(dag)),
        "latest": iso(latest(dag)),
        **given({
            "dag_display_name": dag.dag_display_name if dag.dag_display_name != dag.dag_id else None,
            "dagrun_timeout": dag.dagrun_timeout and dag.dagrun_timeout.total_seconds(),
            "fail_fast": dag.fail_fast,
            "max_consecutive_failed_dag_runs": dag.max_consecutive_failed_dag_runs,
            "on_success_callback": bool(dag.on_success_callback),
            "on_failure_callback": bool(dag.on_failure_callback),
            "asset_condition": None if asset_condition is None else asset_condition.described(),
            "groups": [of_group(group) for group in dag.group_ids.values()],
            "edge_labels": [[*ends, label] for ends, label in dag.edge_labels.items()],
        }),
        "tasks": [of_task(task, steady) for task in dag.ordered()],
    }


def shown_schedule(dag):
    """As people wrote it, where that is a text."""
    return dag.schedule if isinstance(dag.schedule, str) else str(dag.timetable.summary)


def earliest(dag):
    dates = [one for one in [dag.start_date, *(task.start_date for task in dag.tasks)] if one is not None]
    return min(dates) if dates else None


def latest(dag):
    ends = [task.end_date for task in dag.tasks]
    if ends and all(one is not None for one in ends):
        return max([*ends, *([dag.end_date] if dag.end_date is not None else [])])
    return dag.end_date


def of_group(group):
    parent = group.parent_group
    whole = {"group_id": group.group_id, "parent": None if parent is None or parent.is_root else parent.group_id}
    return {**whole, **given({
        "tooltip": group.tooltip,
        "display_name": group.group_display_name,
        "length": group.expand_input.length() if isinstance(group, MappedTaskGroup) else None,
        "sources": sources(group.expand_input) if isinstance(group, MappedTaskGroup) else None,
    })}


def sources(expand_input):
    return [one.task_id for one in expand_input.operators()]


def of_task(task, steady):
    group = task.task_group
    return {
        "task_id": task.task_id,
        "operator": task.task_type,
        "operator_name": task.operator_name or task.task_type,
        "upstream": sorted(task.upstream_task_ids),
        "retries": task.retries,
        "retry_delay": task.retry_delay.total_seconds(),
        "execution_timeout": task.execution_timeout and task.execution_timeout.total_seconds(),
        "owner": task.owner,
        "doc_md": task.doc_md,
        **given({
            "trigger_rule": task.trigger_rule if task.trigger_rule != "all_success" else None,
            "retry_backoff": task.retry_exponential_backoff or None,
            "max_retry_delay": task.max_retry_delay and task.max_retry_delay.total_seconds(),
            "depends_on_past": task.depends_on_past,
            "wait_for_downstream": task.wait_for_downstream,
            "ignore_first_depends_on_past": task.ignore_first_depends_on_past,
            "pool": task.pool if task.pool != "default_pool" else None,
            "pool_slots": task.pool_slots if task.pool_slots != 1 else None,
            "own_weight": task.priority_weight if task.priority_weight != 1 else None,
            "weight_rule": task.weight_rule if task.weight_rule != "downstream" else None,
            "max_active_tis_per_dag": task.max_active_tis_per_dag,
            "max_active_tis_per_dagrun": task.max_active_tis_per_dagrun,
            "start_date": iso(task.start_date),
            "end_date": iso(task.end_date),
            "is_setup": task.is_setup,
            "is_teardown": task.is_teardown,
            "on_failure_fail_dagrun": task.on_failure_fail_dagrun,
            "decides": task.skips_downstream,
            "reschedules": getattr(task, "reschedule", False),
            "group": None if group is None or group.is_root else group.group_id,
            "length": task.expand_input.length() if task.is_mapped else None,
            "sources": sources(task.expand_input) if task.is_mapped else None,
            "mapped": task.is_mapped,
            "is_nothing": is_nothing(task),
            "waits": wait(task) if steady else None,
            "inlets": [one.described() for one in task.inlets if is_asset(one)],
            "outlets": [one.described() for one in task.outlets if is_asset(one)],
            "template_fields": list(task.template_fields),
            "params": own_params(task),
            "display_name": task.task_display_name if task.task_display_name != task.task_id else None,
            "env": getattr(task, "leoflow_env", None),
        }),
        "weight": priority.total(task),
    }


def is_nothing(task):
    """Whether it ends without ever being a process: Airflow's scheduler ends these itself."""
    return bool(
        task.inherits_from_empty_operator
        and not task.on_execute_callback
        and not task.on_success_callback
        and not task.outlets
        and not task.inlets
    )


# What decides how a sensor waits: of our own classes it is known.
WAITING = ("execute", "poke", "due", "known_wait", "_dates", "_count", "pre_execute", "post_execute", "render_template_fields")


# What a file may work out a time from that is another one whenever it is run.
UNSTEADY = re.compile(
    r"\b(?:now|today|utcnow|tomorrow|yesterday|days_ago|time_ns|localtime|gmtime|monotonic|random|uuid\w*|stat|getmtime)\b"
    r"|\btime\.time\b|\bimport\s+time\b|\bfrom\s+time\s+import\b"
)


def is_steady(sources):
    """Whether files give the same whenever they are run, as far as their texts tell."""
    return not any(UNSTEADY.search(text) for text in sources)


def wait(task):
    """What a sensor waits for that the scheduler knows, or finds by itself: nothing runs until then."""
    kind = type(task)
    if task.is_mapped or not getattr(kind, "is_sensor", False):
        return None
    functions = [getattr(kind, name, None) for name in WAITING]
    if any(getattr(one, "__module__", "leoflow").partition(".")[0] != "leoflow" for one in functions if one is not None):
        return None
    # It is measured by the process that waits, and by that alone.
    if task.execution_timeout is not None and not task.reschedule:
        return None
    # What comes before the wait is its process's.
    if task.on_execute_callback or getattr(task, "_pre_execute_hook", None) or not math.isfinite(task.timeout + task.poke_interval):
        return None
    until = task.known_wait()
    is_all = not (
        task.on_success_callback or getattr(task, "_post_execute_hook", None) or task.outlets or task.inlets
    )
    # A process that begins later, on another day, would wait for that day's.
    if until is None or not is_all and until["kind"] in ("time", "weekday"):
        return None
    return {"until": until, "timeout": task.timeout, "is_all": is_all}


def is_asset(one):
    return isinstance(one, (Asset, AssetAlias, AssetNameRef, AssetUriRef))


def own_params(task):
    from leoflow.authoring.params import Param

    return {name: (one if isinstance(one, Param) else Param(one)).described() for name, one in task.own_params.items()}
