"""What parses and runs a DAG with our own package: the default. `leoflow.sdk.side` has the same for Airflow's own SDK."""

from __future__ import annotations

import os

from leoflow.authoring import parsing_context
from leoflow.authoring.dag import of_file
from leoflow.authoring.run_types import DagRunType
from leoflow.authoring.timetables import DataInterval, TimeRestriction
from leoflow.common import current, task_log
from leoflow.common.exceptions import AirflowException
from leoflow.common.reports import explain
from leoflow.entry import structure
from leoflow.running.context import build_context
from leoflow.running.offline import Memory, Offline
from leoflow.running.task_api import TaskApi
from leoflow.running.task_instance import DagRun
from leoflow.running.task_try import Try
from leoflow.running.xcoms import TaskXComs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from leoflow.authoring.dag import DAG
    from leoflow.entry.workspace import Workspace


def dags_of(workspace: Workspace, path: str, settings: dict[str, Any] | None = None) -> list[DAG]:
    """The DAGs that the file makes, with what the project's own settings say."""
    path = os.path.abspath(path)
    module = workspace.run(path)
    found = of_file(path, module, workspace.owns)
    if settings:
        from leoflow.entry.settings import apply

        apply(settings, found)
    return found


def structures(dags: list[DAG], workspace: Workspace) -> list[dict[str, Any]]:
    """As they are stored, each with where it is made: that is told of what is wrong with it, and is no part of it."""
    steady = structure.is_steady(workspace.ran.values())
    return [{**structure.of_dag(dag, steady), "place": f"{dag.module_file}:{dag.line}"} for dag in dags]


def begin_try(spec: dict[str, Any], workspace: Workspace, folder: str) -> Try:
    """The try, ready to run."""
    parsing_context.is_for(spec["dag_id"], spec["task_id"])
    for dag in dags_of(workspace, spec["fileloc"], spec.get("settings")):
        if dag.dag_id == spec["dag_id"]:
            context = build_context(spec, dag, dag.get_task(spec["task_id"]), TaskXComs(), TaskApi())
            return Try(context["task"], context, folder, spec.get("max_map_length", 1024))
    raise AirflowException(f"{spec['fileloc']} does not make the DAG {spec['dag_id']!r} any more")


def try_in_foreground(dag: DAG, task: Any, spec: dict[str, Any], memory: Memory) -> Try:
    """The try, ready to run, with no server to ask."""
    return Try(task, build_context(spec, dag, task, memory, Offline(memory)), most_elements=spec["max_map_length"])


def wait_for_trigger(deferral: dict[str, Any], spec: dict[str, Any], task_id: str) -> dict[str, Any]:
    """What a deferred task goes on with, once its trigger has fired; it is run here."""
    from leoflow.running import deferral as deferred

    return deferred.KIND.run_here(deferral, {**spec, "task_id": task_id})


def begin_log(take: Callable[[dict[str, Any]], None]) -> None:
    """What Python's loggers say is part of the task's log. `take` takes each event."""
    task_log.begin_loggers(take)


def timetable_of(dag: DAG) -> tuple[Any, type, type, Any]:
    """Its timetable, the classes in which that speaks of intervals, and the type of the runs that it makes."""
    return dag.timetable, DataInterval, TimeRestriction, DagRunType.SCHEDULED


def call_back(dag: DAG, spec: dict[str, Any]) -> list[str]:
    """The DAG's own callbacks, with the context of the task that decided. Returns what went wrong."""
    context = {"dag": dag, "run_id": spec["run_id"], "reason": spec["reason"]}
    if spec.get("task_id") in dag.task_dict:
        task = dag.get_task(spec["task_id"])
        context = build_context(spec, dag, task, TaskXComs(), TaskApi())
        context["reason"] = spec["reason"]
        context["dag_run"].state = spec["state"]
    elif spec.get("conf") is not None:
        context["dag_run"] = DagRun(spec)
        context["dag_run"].state = spec["state"]
    functions = dag.on_success_callback if spec["state"] == "success" else dag.on_failure_callback
    problems = []
    current.set_context(context)
    for function in functions:
        try:
            function(context)
        except Exception as error:
            problems.append(explain(error))
    return problems
