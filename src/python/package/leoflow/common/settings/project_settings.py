"""Applies the settings of `leoflow.yaml` to the DAGs of its project. Rust has read and validated the file; this module
checks its names of DAGs and tasks. Precedence: `tasks`, then `defaults`, then the DAG file."""

from __future__ import annotations

import difflib
from datetime import timedelta

from leoflow.common.exceptions import AirflowException

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


def nearest(name, known):
    """Returns a hint with the most similar known name, or an empty text."""
    matches = difflib.get_close_matches(name, known, 1, 0.5)
    return f"; did you mean {matches[0]!r}?" if matches else ""


def apply(settings: dict[str, Any], dags: list[Any], set_value: Callable[[Any, str, Any], None]) -> None:
    """Applies the settings. `set_value(task, name, value)` sets an attribute of a task; for `env`, it merges the value
    with the task's variables. Raises AirflowException for an unknown DAG or task."""
    file = settings["file"]
    dag_id = settings.get("dag_id")
    if dag_id is not None:
        ids = [dag.dag_id for dag in dags]
        # If the settings have a `dag_id`, they apply to this DAG only.
        dags = [dag for dag in dags if dag.dag_id == dag_id]
        if not dags and ids:
            raise AirflowException(f"{file}: dag_id {dag_id!r} is not the DAG of this file, which is {', '.join(ids)}"
                                   f"{nearest(dag_id, ids)}")
    for dag in dags:
        apply_to_dag(dag, settings, file, set_value)


def apply_to_dag(dag, settings, file, set_value):
    if "description" in settings:
        dag.description = settings["description"]
    if "tags" in settings:
        dag.tags = set(settings["tags"])
    unknown = [task_id for task_id in settings.get("tasks", {}) if task_id not in dag.task_dict]
    if unknown:
        raise AirflowException(f"{file}: DAG {dag.dag_id!r} has no task {unknown[0]!r}{nearest(unknown[0], dag.task_ids)}")
    for task in dag.tasks:
        apply_to_task(task, {"owner": settings.get("owner")}, set_value)
        apply_to_task(task, settings.get("defaults", {}), set_value)
        apply_to_task(task, settings.get("tasks", {}).get(task.task_id, {}), set_value)


def apply_to_task(task, values, set_value):
    if values.get("owner") is not None:
        set_value(task, "owner", values["owner"])
    if values.get("retries") is not None:
        set_value(task, "retries", values["retries"])
    if values.get("retry_delay_seconds") is not None:
        set_value(task, "retry_delay", timedelta(seconds=values["retry_delay_seconds"]))
    if values.get("execution_timeout_seconds") is not None:
        set_value(task, "execution_timeout", timedelta(seconds=values["execution_timeout_seconds"]))
    if values.get("env"):
        set_value(task, "env", values["env"])
