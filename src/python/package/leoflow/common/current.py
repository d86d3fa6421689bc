"""The current DAG, task group and task: the enclosing `with` blocks, and the context of the running task."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from leoflow.common.graph import Dag, Group, Task


_dags = []
_groups = []
_context = None
# The mapped task whose instance is being created, or None.
_unmapped = None


def dag() -> Dag | None:
    return _dags[-1] if _dags else None


def enter_dag(new_dag: Dag) -> None:
    _dags.append(new_dag)
    _groups.append(new_dag.task_group)


def leave_dag() -> None:
    _dags.pop()
    _groups.pop()


def group(of_dag: Dag | None = None) -> Group | None:
    """Returns the group of the innermost `with` block of that DAG, or the DAG's root group."""
    for candidate in reversed(_groups):
        if of_dag is None or candidate.dag is of_dag:
            return candidate
    return of_dag.task_group if of_dag is not None else None


def enter_group(new_group: Group) -> None:
    _groups.append(new_group)


def leave_group() -> None:
    _groups.pop()


def unmap(task: Task | None) -> None:
    """Sets the mapped task whose instance is being created, or None afterwards."""
    global _unmapped
    _unmapped = task


def unmapped() -> Task | None:
    return _unmapped


def set_context(context: Mapping[str, Any] | None) -> None:
    global _context
    _context = context


def context() -> Mapping[str, Any] | None:
    return _context


CONTEXT_KEYS = frozenset(
    """
    asset_state_store conn dag dag_run data_interval_end data_interval_start ds ds_nodash exception expanded_ti_count
    inlet_events inlets logical_date macros map_index_template outlet_events outlets params partition_date
    partition_key prev_data_interval_end_success prev_data_interval_start_success prev_end_date_success
    prev_start_date_success reason run_id task task_instance task_instance_key_str task_reschedule_count
    task_state_store templates_dict test_mode ti triggering_asset_events try_number ts ts_nodash ts_nodash_with_tz var
    """.split()
)


def get_current_context() -> Mapping[str, Any]:
    """Returns the context of the running task. Raises RuntimeError if no task is running."""
    if _context is None:
        raise RuntimeError(
            "Current context was requested but no context was found! Are you running within an Airflow task?"
        )
    return _context
