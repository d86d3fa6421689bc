"""What `leoflow.yaml` says of the DAGs beside it. Rust has read and checked the file; which DAGs and
tasks there are is known only here. Precedence: task, then defaults, then dag.py."""

from __future__ import annotations

import difflib
from datetime import timedelta

from leoflow.common.exceptions import AirflowException

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from leoflow.authoring.dag import DAG


def nearest(name, known):
    found = difflib.get_close_matches(name, known, 1, 0.5)
    return f"; did you mean {found[0]!r}?" if found else ""


def apply(settings: dict[str, Any], dags: list[DAG]) -> None:
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
        of_dag(dag, settings, file)


def of_dag(dag, settings, file):
    if "description" in settings:
        dag.description = settings["description"]
    if "tags" in settings:
        dag.tags = set(settings["tags"])
    unknown = [task_id for task_id in settings.get("tasks", {}) if task_id not in dag.task_dict]
    if unknown:
        raise AirflowException(f"{file}: DAG {dag.dag_id!r} has no task {unknown[0]!r}{nearest(unknown[0], dag.task_ids)}")
    for task in dag.tasks:
        of_task(task, {"owner": settings.get("owner")})
        of_task(task, settings.get("defaults", {}))
        of_task(task, settings.get("tasks", {}).get(task.task_id, {}))


def of_task(task, given):
    if given.get("owner") is not None:
        task.owner = given["owner"]
    if given.get("retries") is not None:
        task.retries = given["retries"]
    if given.get("retry_delay_seconds") is not None:
        task.retry_delay = timedelta(seconds=given["retry_delay_seconds"])
    if given.get("execution_timeout_seconds") is not None:
        set_base(task, "execution_timeout", timedelta(seconds=given["execution_timeout_seconds"]))
    if given.get("env"):
        task.leoflow_env = {**getattr(task, "leoflow_env", {}), **given["env"]}


def set_base(task, name, value):
    """Also of the instances of a mapped task, which are made later."""
    setattr(task, name, value)
    if task.is_mapped:
        task.base_kwargs[name] = value
