"""What parses and runs a DAG with Airflow's own SDK. `entry/small_side.py` has the same for our own package."""

from __future__ import annotations

from leoflow.common.exceptions import AirflowException
from leoflow.common.reports import explain
from leoflow.sdk import dag_file, hitl_messages, logs, named_classes, structure, task_try
from leoflow.sdk.offline import OfflineSupervisor
from leoflow.sdk.supervisor import Supervisor, TaskSupervisor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from airflow.sdk import DAG


def dags_of(workspace: Any, path: str, settings: dict[str, Any] | None = None) -> list[DAG]:
    """The DAGs that the file makes, with what the project's own settings say."""
    # First: whatever is imported of Airflow may want one of them.
    named_classes.check()
    from airflow.sdk.execution_time import task_runner

    task_runner.SUPERVISOR_COMMS = Supervisor()
    task_try.block_database()
    return dag_file.dags_of(workspace, path, settings)


def structures(dags: list[DAG], workspace: Any) -> list[dict[str, Any]]:
    """As they are stored, each with where it is made: that is told of what is wrong with it, and is no part of it."""
    return [{**structure.of_dag(dag), "place": dag_file.place_of(dag, workspace.source(dag.fileloc))} for dag in dags]


def begin_try(spec: dict[str, Any], workspace: Any, folder: str) -> task_try.Try:
    """The try, ready to run."""

    def make_dag():
        for dag in dag_file.dags_of(workspace, spec["fileloc"], spec.get("settings")):
            if dag.dag_id == spec["dag_id"]:
                return dag
        raise AirflowException(f"{spec['fileloc']} does not make the DAG {spec['dag_id']!r} any more")

    named_classes.check()
    # Listeners hear of the beginning.
    dag_file.enter_project()
    return task_try.Try(spec, make_dag, TaskSupervisor(spec), folder)


def try_in_foreground(dag: DAG, task: Any, spec: dict[str, Any], memory: Any) -> task_try.Try:
    """The try, ready to run, with no server to ask."""
    spec = {**spec, "task_id": task.task_id, "fileloc": dag.fileloc}
    return task_try.Try(spec, lambda: dag, OfflineSupervisor(spec, memory))


def wait_for_trigger(deferral: dict[str, Any], spec: dict[str, Any], task_id: str) -> dict[str, Any]:
    """What a deferred task goes on with, once its trigger has fired; it is run here."""
    from leoflow.sdk import triggers

    return triggers.KIND.run_here(deferral, {**spec, "task_id": task_id})


def ask_here(attempt: task_try.Try, deferral: dict[str, Any]) -> dict[str, Any]:
    """What a task goes on with that asks a person: the one at the terminal."""
    return hitl_messages.answered_here(attempt.supervisor.question, deferral)


def begin_log(take: Callable[[dict[str, Any]], None]) -> None:
    """What Airflow's loggers say is part of the task's log. `take` takes each event."""
    logs.configure(take)


def timetable_of(dag: DAG) -> tuple[Any, type, type, Any]:
    """Its timetable, the classes in which that speaks of intervals, and the type of the runs that it makes."""
    from airflow.timetables.base import DataInterval, TimeRestriction
    from airflow.utils.types import DagRunType

    timetable = dag.timetable
    while not hasattr(timetable, "next_dagrun_info"):
        timetable = timetable.timetable
    return timetable, DataInterval, TimeRestriction, DagRunType.SCHEDULED


def call_back(dag: DAG, spec: dict[str, Any]) -> list[str]:
    """The DAG's own callbacks, with the context of the task that decided. Returns what went wrong."""
    from airflow.sdk.execution_time.context import set_current_context

    logs.configure()
    context = task_try.context_of(dag, spec)
    context["reason"] = spec["reason"]
    functions = dag.on_success_callback if spec["state"] == "success" else dag.on_failure_callback
    problems = []
    with set_current_context(context):
        for function in functions if isinstance(functions, (list, tuple)) else [functions]:
            try:
                function(context)
            except Exception as error:
                problems.append(explain(error))
    return problems
