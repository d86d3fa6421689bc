"""Parses and runs DAGs with Airflow's SDK. `entry/small_backend.py` has the same functions for the small package."""

from __future__ import annotations

from leoflow.airflow_2.install import install_if
from leoflow.common import run_events
from leoflow.common.dates import parse_time
from leoflow.common.exceptions import AirflowException
from leoflow.common.hints.commands import command
from leoflow.common.hints.packages import how_to_add
from leoflow.common.settings.airflow_settings import DEFAULT_BACKEND, Setting
from leoflow.sdk import dag_file, logs, named_classes, structure, task_try
from leoflow.sdk.definitions import deadlines
from leoflow.sdk.messages import hitl as hitl_messages
from leoflow.sdk.offline import OfflineSupervisor
from leoflow.sdk.plugins import load_errors, run_listeners
from leoflow.sdk.supervisor import Supervisor, TaskSupervisor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from airflow.sdk import DAG


def dags_of(workspace: Any, path: str, settings: dict[str, Any] | None = None) -> list[DAG]:
    """Runs a DAG file; returns its DAGs with the project's settings applied."""
    # Comes first, because imports of Airflow may need one of the classes.
    named_classes.check()
    from airflow.sdk.execution_time import task_runner

    task_runner.SUPERVISOR_COMMS = Supervisor()
    task_try.block_database()
    return dag_file.dags_of(workspace, path, settings)


def structures(dags: list[DAG], workspace: Any) -> list[dict[str, Any]]:
    """Returns the structures of DAGs, each with its `place`, which error messages name and which is not stored with
    it."""
    listened = {"run_listeners": True} if dags and run_listeners.may_exist() else {}
    if dags and run_listeners.may_exist(run_events.TASK_FAILED):
        listened["task_failure_callbacks"] = True
    return [{**structure.dag_structure(dag), **listened, "place": dag_file.location_of(dag, workspace.source(dag.fileloc))} for dag in dags]


def plugin_problems() -> list[str]:
    """Returns the plugins that cannot be loaded, with reasons. Loads all, which takes seconds."""
    return load_errors.find()


def email_problem() -> str | None:
    """Returns why no e-mail can be sent, or None if the provider that sends it, or another backend, is there."""
    from importlib.util import find_spec

    if Setting("email", "email_backend", DEFAULT_BACKEND, str).value() != DEFAULT_BACKEND:
        return None
    try:
        is_installed = find_spec("airflow.providers.smtp") is not None
    except ModuleNotFoundError:
        is_installed = False
    package = "apache-airflow-providers-smtp"
    return None if is_installed else f"{package} is not installed: {how_to_add(package)}"


def load(spec: dict[str, Any], workspace: Any) -> list[DAG]:
    """Returns the DAGs of the file of a try."""
    install_if(spec.get("settings"))
    return dags_of(workspace, spec["fileloc"], spec.get("settings"))


def begin_try(spec: dict[str, Any], workspace: Any, dags: list[DAG] | None = None) -> task_try.Try:
    """Returns the try, ready to run. `dags` are those of `load`, if it was called before."""

    def make_dag():
        for dag in dag_file.dags_of(workspace, spec["fileloc"], spec.get("settings")) if dags is None else dags:
            if dag.dag_id == spec["dag_id"]:
                return dag
        raise AirflowException(f"{spec['fileloc']} no longer defines the DAG {spec['dag_id']!r}")

    named_classes.check()
    # Precedes the import of plugins.
    install_if(spec.get("settings"))
    # Sets the plugins folder, because listeners of plugins are notified of the start.
    dag_file.enter_project()
    return task_try.Try(spec, make_dag, TaskSupervisor(spec))


def try_in_foreground(dag: DAG, task: Any, spec: dict[str, Any], memory: Any) -> task_try.Try:
    """Returns a try that runs without a server."""
    if structure.loop_of(task) is not None:
        raise AirflowException(f"{task.task_id} is in a loop, which only the scheduler runs: "
                               f"`{command(f'dags trigger {dag.dag_id}')}`")
    spec = {**spec, "task_id": task.task_id, "fileloc": dag.fileloc}
    return task_try.Try(spec, lambda: dag, OfflineSupervisor(spec, memory))


def wait_for_trigger(deferral: dict[str, Any], spec: dict[str, Any], task_id: str) -> dict[str, Any]:
    """Runs the trigger of a deferred task in this process; returns `next_method` and `next_kwargs` of the task, or the
    state in which the trigger ended it."""
    from leoflow.sdk import triggers

    return triggers.TRIGGER_BACKEND.run_here(deferral, {**spec, "task_id": task_id})


def ask_at_terminal(attempt: task_try.Try, deferral: dict[str, Any]) -> dict[str, Any]:
    """Asks the task's question at the terminal; returns `next_method` and `next_kwargs` of the task."""
    return hitl_messages.answer_at_terminal(attempt.supervisor.question, deferral)


def begin_log(sink: Callable[[dict[str, Any]], None]) -> None:
    """Passes the events of Airflow's loggers to `sink`."""
    logs.configure(sink)


def timetable_of(dag: DAG) -> tuple[Any, type, type, Any]:
    """Returns a DAG's timetable, its classes for data intervals and time restrictions, and the type of scheduled
    runs."""
    from airflow.timetables.base import DataInterval, TimeRestriction
    from airflow.utils.types import DagRunType

    timetable = dag.timetable
    while not hasattr(timetable, "next_dagrun_info"):
        timetable = timetable.timetable
    return timetable, DataInterval, TimeRestriction, DagRunType.SCHEDULED


def call_back(dag: DAG, spec: dict[str, Any], memory: Any = None) -> list[dict[str, Any]]:
    """Calls the listeners of DAG runs, then the DAG's callbacks; or the callbacks of a killed try, or of a missed deadline,
    that `spec` names. `memory` has the XComs of a foreground run. Returns the
    problems, see `run_events.problem`."""
    if spec["reason"] in run_events.KILLED:
        return call_back_of_try(dag, spec)
    if spec.get("deadline"):
        return deadlines.call_back(dag, spec)
    problems = run_listeners.notify(dag, spec)
    return problems + (run_callbacks(dag, spec, memory) if run_events.calls_callbacks(spec) else [])


def call_back_of_try(dag, spec):
    """Calls the callbacks of a failed try whose process was killed. Returns the problems."""
    from airflow.sdk.execution_time import task_runner
    from airflow.sdk.execution_time.context import set_current_context

    context = task_try.context_of(dag, spec)
    ti = context["ti"]
    ti.state = task_runner.TaskInstanceState(run_events.KILLED[spec["reason"]])
    ti.start_date, ti.end_date = parse_time(spec["try_start_date"]), parse_time(spec["try_end_date"])
    fields = {"previous_state": task_runner.TaskInstanceState.RUNNING, "task_instance": ti}
    hooks = task_runner.get_listener_manager().hook
    with set_current_context(context):
        task_try.unmap(context)
        return run_events.call_back_of_try(spec, context, lambda error: hooks.on_task_instance_failed(**fields, error=error),
                                           lambda: task_try.send_email(context))


def run_callbacks(dag, spec, memory):
    """Runs the DAG's callbacks for the state of a run, with the context of the task that decided that state. Returns
    the problems."""
    from airflow.sdk.execution_time.context import set_current_context

    functions = dag.on_success_callback if spec["state"] == "success" else dag.on_failure_callback
    if not functions:
        return []
    context = task_try.context_of(dag, spec, OfflineSupervisor(spec, memory) if memory else None)
    context["reason"] = spec["reason"]
    problems = []
    with set_current_context(context):
        for function in functions if isinstance(functions, (list, tuple)) else [functions]:
            try:
                function(context)
            except Exception as error:
                problems.append(run_events.problem(function, error))
    return problems
