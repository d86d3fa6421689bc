"""What the scheduler is told of a DAG, as far as our own package's objects and those of Airflow's SDK have it under the same
names. What is as it mostly is, is left out."""

from __future__ import annotations

from leoflow.common.dates import zone_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def iso(value: Any) -> str | None:
    return None if value is None else value.isoformat()


def seconds(value):
    return None if value is None else value.total_seconds()


def given(pairs):
    """Without what is nothing."""
    return {name: value for name, value in pairs.items() if value not in (None, False, [], {})}


def other_than(usual: Any, value: Any) -> Any:
    return None if value == usual else value


def of_dag(dag: Any, timetable: Any, own: dict[str, Any], rare: dict[str, Any], tasks: list[dict[str, Any]]) -> dict[str, Any]:
    """`own` and `rare` are what each of the two finds in its own way; of `rare` what is nothing is left out."""
    return {
        "dag_id": dag.dag_id,
        "description": dag.description,
        "doc_md": dag.doc_md,
        "schedule": shown_schedule(dag, timetable),
        "start_date": iso(dag.start_date),
        "end_date": iso(dag.end_date),
        "catchup": dag.catchup,
        "tags": sorted(dag.tags),
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
        **own,
        **given({
            "dag_display_name": other_than(dag.dag_id, dag.dag_display_name),
            "dagrun_timeout": seconds(dag.dagrun_timeout),
            "fail_fast": dag.fail_fast,
            "max_consecutive_failed_dag_runs": dag.max_consecutive_failed_dag_runs,
            "on_success_callback": bool(dag.on_success_callback),
            "on_failure_callback": bool(dag.on_failure_callback),
            **rare,
        }),
        "tasks": tasks,
    }


def shown_schedule(dag, timetable):
    """As people wrote it, where that is a text."""
    if type(dag.timetable).__name__ == "NullTimetable":
        return None
    return dag.schedule if isinstance(dag.schedule, str) else str(timetable.summary)


def earliest(dag):
    dates = [one for one in [dag.start_date, *(task.start_date for task in dag.tasks)] if one is not None]
    return min(dates) if dates else None


def latest(dag):
    ends = [task.end_date for task in dag.tasks]
    if ends and all(one is not None for one in ends):
        return max([*ends, *([dag.end_date] if dag.end_date is not None else [])])
    return dag.end_date


def parent_of(group: Any) -> str | None:
    """The group that holds a task or a group, None for that of the whole DAG."""
    return None if group is None or group.is_root else group.group_id


# What a file joins a group with, as tasks and as groups.
LINKS = ("upstream_group_ids", "downstream_group_ids", "upstream_task_ids", "downstream_task_ids")


def of_group(group: Any, length: Any, sources: Any) -> dict[str, Any]:
    """`length` and `sources` of a mapped one are as a mapped task's."""
    return {"group_id": group.group_id, "parent": parent_of(group.parent_group), **given({
        "tooltip": group.tooltip,
        "display_name": group.group_display_name,
        "length": length,
        "sources": sources,
        **{name: sorted(getattr(group, name) - {None}) for name in LINKS},
    })}


def of_task(task: Any, weight: int, rare: dict[str, Any]) -> dict[str, Any]:
    """`weight` is the one that the scheduler compares; `rare` as of a DAG."""
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
        **given({
            "max_retry_delay": seconds(task.max_retry_delay),
            "depends_on_past": task.depends_on_past,
            "wait_for_downstream": task.wait_for_downstream,
            "ignore_first_depends_on_past": task.ignore_first_depends_on_past,
            "pool": other_than("default_pool", task.pool),
            "pool_slots": other_than(1, task.pool_slots),
            "own_weight": other_than(1, task.priority_weight),
            "max_active_tis_per_dag": task.max_active_tis_per_dag,
            "max_active_tis_per_dagrun": task.max_active_tis_per_dagrun,
            "is_setup": task.is_setup,
            "is_teardown": task.is_teardown,
            "on_failure_fail_dagrun": task.on_failure_fail_dagrun,
            "group": parent_of(task.task_group),
            "template_fields": list(task.template_fields),
            "display_name": other_than(task.task_id, task.task_display_name),
            **rare,
        }),
    }


def is_nothing(task: Any, inherits_from_empty_operator: bool) -> bool:
    """Whether it ends without ever being a process: Airflow's scheduler ends these itself."""
    return bool(
        inherits_from_empty_operator
        and not task.on_execute_callback
        and not task.on_success_callback
        and not task.outlets
        and not task.inlets
    )
