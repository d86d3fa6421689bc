"""Parses and runs DAGs with the small package (Leoflow's own implementation of `airflow.sdk`), the default.
`leoflow.sdk.backend` has the same functions for Airflow's SDK.

To start faster, a process imports only the modules of its own job: the functions that run a task import `running`, and
`structures` imports `structure`.
"""

from __future__ import annotations

import os

from leoflow.airflow_2.install import install_if
from leoflow.authoring import plugins
from leoflow.authoring.dag import parsing_context
from leoflow.authoring.dag.dag import collect_dags
from leoflow.authoring.run_types import DagRunType
from leoflow.authoring.timetables.standard import DataInterval, TimeRestriction
from leoflow.common import current, run_events, task_log
from leoflow.common.dates import parse_time
from leoflow.common.exceptions import AirflowException
from leoflow.common.leoflow_server import NotRunning
from leoflow.common.settings import image_folder, secrets_backend
from leoflow.entry import plugin_files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from leoflow.authoring.dag.dag import DAG
    from leoflow.entry.workspace import Workspace
    from leoflow.running.offline import InMemoryXComs
    from leoflow.running.task_try import Try


def dags_of(workspace: Workspace, path: str, settings: dict[str, Any] | None = None) -> list[DAG]:
    """Runs a DAG file and loads the project's plugins; returns its DAGs with the project's settings applied."""
    secrets_backend.paths()
    path = os.path.abspath(path)
    image_folder.show_if(settings)
    install_if(settings)
    module = workspace.run(path)
    dags = collect_dags(path, module, workspace.owns)
    plugin_files.load(workspace)
    if settings:
        from leoflow.entry.settings import apply

        apply(settings, dags)
    return dags


def structures(dags: list[DAG], workspace: Workspace) -> list[dict[str, Any]]:
    """Returns the structures of DAGs. `place` (file:line) is used in error messages and is not stored."""
    from leoflow.entry import structure

    deterministic = structure.is_deterministic(workspace.executed.values())
    listened = {"run_listeners": True} if any(map(plugins.implementations, run_events.HOOKS.values())) else {}
    if plugins.implementations(run_events.TASK_FAILED):
        listened["task_failure_callbacks"] = True
    return [{**structure.dag_structure(dag, deterministic), **listened, "place": f"{dag.module_file}:{dag.line}"} for dag in dags]


def plugin_problems() -> list[str]:
    """Returns nothing, because `dags_of` has noted them."""
    return []


def email_problem() -> str | None:
    """Returns why no e-mail can be sent, or None if a mail server is configured or, without Leoflow's server, may be."""
    from leoflow.running import error_email

    try:
        error_email.check()
    except NotRunning:
        return None
    except Exception as error:
        return str(error)
    return None


def load(spec: dict[str, Any], workspace: Workspace) -> list[DAG]:
    """Returns the DAGs of the file of a try."""
    return dags_of(workspace, spec["fileloc"], spec.get("settings"))


def begin_try(spec: dict[str, Any], workspace: Workspace, dags: list[DAG] | None = None) -> Try:
    """Returns the try, ready to run. `dags` are those of `load`, if it was called before."""
    from leoflow.running.context import build_context
    from leoflow.running.task_api import TaskApi
    from leoflow.running.task_try import Try
    from leoflow.running.xcoms import TaskXComs

    parsing_context.set_parsing_context(spec["dag_id"], spec["task_id"])
    for dag in load(spec, workspace) if dags is None else dags:
        if dag.dag_id == spec["dag_id"]:
            for problem in workspace.plugin_problems:
                task_log.log_event("error", task_log.OWN, problem)
            context = build_context(spec, dag, dag.get_task(spec["task_id"]), TaskXComs(), TaskApi())
            attempt = Try(context["task"], context, spec.get("max_map_length", 1024))
            attempt.notify_listeners("on_starting", component=run_events.Component())
            return attempt
    raise AirflowException(f"{spec['fileloc']} no longer defines the DAG {spec['dag_id']!r}")


def try_in_foreground(dag: DAG, task: Any, spec: dict[str, Any], memory: InMemoryXComs) -> Try:
    """Returns a try that runs without a server."""
    from leoflow.running.context import build_context
    from leoflow.running.offline import Offline
    from leoflow.running.task_try import Try

    return Try(task, build_context(spec, dag, task, memory, Offline(memory)), max_map_length=spec["max_map_length"])


def wait_for_trigger(deferral: dict[str, Any], spec: dict[str, Any], task_id: str) -> dict[str, Any]:
    """Runs the trigger of a deferred task in this process; returns `next_method` and `next_kwargs` of the task, or the
    state in which the trigger ended it."""
    from leoflow.running import deferral as deferred

    return deferred.TRIGGER_BACKEND.run_here(deferral, {**spec, "task_id": task_id})


def begin_log(sink: Callable[[dict[str, Any]], None]) -> None:
    """Passes the events of Python's loggers to `sink`."""
    task_log.begin_loggers(sink)


def timetable_of(dag: DAG) -> tuple[Any, type, type, Any]:
    """Returns a DAG's timetable, its classes for data intervals and time restrictions, and the type of scheduled
    runs."""
    return dag.timetable, DataInterval, TimeRestriction, DagRunType.SCHEDULED


def call_back(dag: DAG, spec: dict[str, Any], memory: InMemoryXComs | None = None) -> list[dict[str, Any]]:
    """Calls the listeners of DAG runs, then the DAG's callbacks. `memory` has the XComs of a foreground run. Returns the
    problems, see `run_events.problem`."""
    if spec["reason"] in run_events.KILLED:
        return call_back_of_try(dag, spec)
    problems = notify_listeners(dag, spec)
    return problems + (run_callbacks(dag, spec, memory) if run_events.calls_callbacks(spec) else [])


def call_back_of_try(dag, spec):
    """Calls the callbacks of a failed try whose process was killed. Returns the problems."""
    from leoflow.running import error_email
    from leoflow.running.context import build_context
    from leoflow.running.task_api import TaskApi
    from leoflow.running.xcoms import TaskXComs

    context = build_context(spec, dag, dag.get_task(spec["task_id"]), TaskXComs(), TaskApi())
    ti, task = context["ti"], context["task"]
    ti.state = run_events.KILLED[spec["reason"]]
    ti.start_date, ti.end_date = parse_time(spec["try_start_date"]), parse_time(spec["try_end_date"])
    current.set_context(context)
    if task.is_mapped:
        task = context["task"] = ti.task = task.unmapped(context, ti.map_index)

    def notify(error):
        failure = plugins.call(run_events.TASK_FAILED, previous_state="running", task_instance=ti, error=error)
        if failure is not None:
            raise failure

    return run_events.call_back_of_try(spec, context, notify, lambda: error_email.send(task, context))


def notify_listeners(dag, spec):
    hook = run_events.HOOKS[spec["state"]]
    if not plugins.implementations(hook):
        return []
    from leoflow.running.listened_run import ListenedRun

    component = run_events.Component()
    errors = {
        "on_starting": plugins.call("on_starting", component=component),
        hook: plugins.call(hook, dag_run=ListenedRun(dag, spec), msg=run_events.message(spec)),
        # Listeners wait for what they do in the background.
        "before_stopping": plugins.call("before_stopping", component=component),
    }
    return [run_events.problem(hook, error) for hook, error in errors.items() if error is not None]


def run_callbacks(dag, spec, memory):
    """Runs the DAG's callbacks for the state of a run, with the context of the task that decided that state. Returns
    the problems."""
    from leoflow.running.context import build_context
    from leoflow.running.offline import Offline
    from leoflow.running.task_api import TaskApi
    from leoflow.running.task_instance import DagRun
    from leoflow.running.xcoms import TaskXComs

    functions = dag.on_success_callback if spec["state"] == "success" else dag.on_failure_callback
    if not functions:
        return []
    context = {"dag": dag, "run_id": spec["run_id"], "reason": spec["reason"]}
    if spec.get("task_id") in dag.task_dict:
        task = dag.get_task(spec["task_id"])
        context = build_context(spec, dag, task, memory or TaskXComs(), Offline(memory) if memory else TaskApi())
        context["reason"] = spec["reason"]
        context["dag_run"].state = spec["state"]
    elif spec.get("conf") is not None:
        context["dag_run"] = DagRun(spec)
        context["dag_run"].state = spec["state"]
    problems = []
    current.set_context(context)
    for function in functions:
        try:
            function(context)
        except Exception as error:
            problems.append(run_events.problem(function, error))
    return problems
