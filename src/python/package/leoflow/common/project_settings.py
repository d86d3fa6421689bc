"""What `leoflow.yaml` says of the DAGs beside it. Rust has read and checked the file; which DAGs and
tasks there are is known only here. Precedence: task, then defaults, then dag.py."""

from __future__ import annotations

import difflib
from datetime import timedelta

from leoflow.common.exceptions import AirflowException

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


def nearest(name, known):
    found = difflib.get_close_matches(name, known, 1, 0.5)
    return f"; did you mean {found[0]!r}?" if found else ""


def apply(settings: dict[str, Any], dags: list[Any], set_value: Callable[[Any, str, Any], None]) -> None:
    """`set_value(task, name, value)` puts a value into a task; `env` adds to what the task has."""
    file = settings["file"]
    wanted = settings.get("dag_id")
    if wanted is not None:
        ids = [dag.dag_id for dag in dags]
        # A project may have other files; this one is about the DAG that it names.
        dags = [dag for dag in dags if dag.dag_id == wanted]
        if not dags and ids:
            raise AirflowException(f"{file}: dag_id {wanted!r} is not the DAG of this file, which is {', '.join(ids)}"
                                   f"{nearest(wanted, ids)}")
    for dag in dags:
        of_dag(dag, settings, file, set_value)


def of_dag(dag, settings, file, set_value):
    if "description" in settings:
        dag.description = settings["description"]
    if "tags" in settings:
        dag.tags = set(settings["tags"])
    unknown = [task_id for task_id in settings.get("tasks", {}) if task_id not in dag.task_dict]
    if unknown:
        raise AirflowException(f"{file}: DAG {dag.dag_id!r} has no task {unknown[0]!r}{nearest(unknown[0], dag.task_ids)}")
    for task in dag.tasks:
        of_task(task, {"owner": settings.get("owner")}, set_value)
        of_task(task, settings.get("defaults", {}), set_value)
        of_task(task, settings.get("tasks", {}).get(task.task_id, {}), set_value)


def of_task(task, given, set_value):
    if given.get("owner") is not None:
        set_value(task, "owner", given["owner"])
    if given.get("retries") is not None:
        set_value(task, "retries", given["retries"])
    if given.get("retry_delay_seconds") is not None:
        set_value(task, "retry_delay", timedelta(seconds=given["retry_delay_seconds"]))
    if given.get("execution_timeout_seconds") is not None:
        set_value(task, "execution_timeout", timedelta(seconds=given["execution_timeout_seconds"]))
    if given.get("env"):
        set_value(task, "env", given["env"])
