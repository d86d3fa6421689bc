"""Runs one try with the functions `startup`, `run` and `finalize` of Airflow's task runner in this process, and with
Leoflow's supervisor."""

from __future__ import annotations

import contextlib
import functools
import inspect
import pathlib
import sys
from types import SimpleNamespace

from leoflow.common import local_modules, task_log
from leoflow.common.exceptions import AirflowException
from leoflow.common.hints.error_hint import hint as error_hint
from leoflow.common.reports import describe, missing_date
from leoflow.running import keeper_pipe
from leoflow.sdk import child_processes, older_versions, start_trigger, startup, tracing
from leoflow.sdk.plugins import operator_links
from leoflow.sdk.supervisor import TaskSupervisor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

ASSET_RUNS = ("asset_triggered", "asset_materialization")


def triggering_events(supervisor: TaskSupervisor, spec: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns the asset events that triggered the run."""
    has_events = spec["run_type"] in ASSET_RUNS or spec.get("waited_for_assets", False)
    return supervisor.ask("assets/triggering") if has_events else []


def block_database() -> None:
    """Makes access to Airflow's database fail with Airflow's own error message."""
    from airflow.sdk.execution_time import supervisor

    block = getattr(supervisor, "block_orm_access", None)
    if block is not None:
        block()


def keep_type_adapters(task_runner: Any) -> None:
    """Makes Airflow's task runner create one validator for a type. It creates one for each template field of each try,
    which takes more time than the rest of a trivial try."""
    adapter = getattr(task_runner, "TypeAdapter", None)
    if isinstance(adapter, type):
        task_runner.TypeAdapter = functools.cache(adapter)


class Try:
    """One try. Creating it runs `make_dag`, which loads the DAG, and Airflow's `startup`; an error prevents the try."""

    def __init__(self, spec: dict[str, Any], make_dag: Callable[[], Any], supervisor: TaskSupervisor):
        from airflow.sdk.execution_time import task_runner

        self.spec = spec
        self.make_dag = make_dag
        # The exception with which the task has skipped itself.
        self.skip: BaseException | None = None
        self.runner = task_runner
        self.supervisor = supervisor
        task_runner.SUPERVISOR_COMMS = supervisor
        keep_type_adapters(task_runner)
        if not spec.get("is_outside"):
            block_database()
        self.span = tracing.TaskSpan(spec)
        details = startup.details(spec, triggering_events(supervisor, spec), self.span.carrier)
        original, task_runner.parse = task_runner.parse, self.parse
        try:
            # Airflow 3.0 requests the startup message from the supervisor; later versions get it as an argument.
            self.supervisor.last = details
            self.supervisor._get_response = lambda: details
            arguments = {"msg": details} if inspect.signature(task_runner.startup).parameters else {}
            self.span.enter(details)
            self.ti, self.context, self.log = task_runner.startup(**arguments)
        except BaseException:
            self.span.finish()
            raise
        finally:
            task_runner.parse = original

    def parse(self, details, *_):
        """Replaces Airflow's function `parse`: loads the DAG with `make_dag`, from the stored sources of its
        version."""
        dag = self.make_dag()
        task = self.supervisor.task = dag.get_task(self.spec["task_id"])
        return instance(details, task, dag.fileloc, self.supervisor)

    def prepare(self) -> None:
        """Creates the task of this map index and renders its templates."""
        self.runner._prepare(self.ti, self.log, self.context)

    @property
    def task(self):
        return self.ti.task

    def run(self) -> dict[str, Any]:
        """Runs the try; returns its result: `task_result` in `messages.schema.json`."""
        keeper_pipe.note_begin()
        children = child_processes.Server(self.supervisor) if child_processes.starts_child_processes(self.ti.task) else None
        with self.observing_execution():
            state, _, self.error = self.runner.run(self.ti, self.context, self.log)
        if children is not None:
            children.finish()
        self.state = state
        self.context["exception"] = self.error
        result = self.supervisor.result
        if "state" not in result:
            # No message handler has recorded this state.
            result.update(state="failed", retry=False, reason=f"Leoflow does not support the state {getattr(state, 'value', state)}")
        self.span.note_error(self.error)
        cause = self.skip if result["state"] == "skipped" else self.error
        if result["state"] in ("failed", "skipped") and cause is not None:
            policy = self.supervisor.retry_reason
            result["reason"] = describe(cause) + (f" (retry policy: {policy})" if policy else "")
        if result["state"] == "failed" and self.error is not None:
            self.log_hints(result)
        if getattr(self.ti.task, "overwrite_rtif_after_execution", False) and self.ti.task.template_fields:
            result["rendered"] = self.runner._serialize_rendered_fields(self.ti.task)
        return result

    @contextlib.contextmanager
    def observing_execution(self):
        """Keeps the exception with which the task skips itself, which Airflow only logs. Makes a task with
        `start_from_trigger` start with its trigger, like Airflow's scheduler from 3.3 on: no method and no callback of
        the task runs before the event."""
        may_begin_with_trigger = not startup.next_method(self.ti) and older_versions.has_start_from_trigger()
        original = self.runner._execute_task

        def execute(*arguments, **others):
            # Only here has Airflow created the task of a mapped instance.
            task = self.ti.task
            if may_begin_with_trigger and task.start_from_trigger is True and task.start_trigger_args is not None:
                raise start_trigger.deferral(task, self.context)
            try:
                return original(*arguments, **others)
            except older_versions.skip_exception() as skip:
                self.skip = skip
                raise

        self.runner._execute_task = execute
        try:
            yield
        finally:
            self.runner._execute_task = original

    def log_hints(self, result):
        """Logs hints after the error, which Airflow has logged already."""
        date = missing_date(self.error) if self.context["dag_run"].logical_date is None else None
        for hint in filter(None, [error_hint(self.error), date]):
            task_log.log_event("error", task_log.OWN, hint)
        if date:
            result["reason"] += f" ({date})"

    def run_callbacks(self) -> None:
        """Runs the user's callbacks and listeners for the outcome of the try; pushes the operator's links."""
        operator_links.push_of_plugins(self.ti, self.supervisor, self.log)
        try:
            self.runner.finalize(self.ti, self.state, self.context, self.log, self.error)
        finally:
            self.span.finish()


def instance(details: Any, task: Any, fileloc: str, supervisor: TaskSupervisor) -> Any:
    """Creates the task instance that task code gets as `ti`."""
    from airflow.sdk.execution_time import task_runner

    def count(task_id):
        body = {"dag_id": details.ti.dag_id, "run_ids": [details.ti.run_id], "task_ids": [task_id]}
        return supervisor.ask("instances/count", body)["count"]

    context = details.ti_context
    older_versions.set_upstream_indexes(context, task, details.ti.map_index, count)
    return task_runner.RuntimeTaskInstance.model_construct(
        **details.ti.model_dump(exclude_unset=True), task=task, _ti_context_from_server=context, max_tries=context.max_tries,
        bundle_instance=startup.Bundle(pathlib.Path(local_modules.roots_of(fileloc)[0])),
        start_date=getattr(context, "start_date", None) or details.start_date,
        state=task_runner.TaskInstanceState.RUNNING, sentry_integration="",
    )


def context_of(dag: Any, spec: dict[str, Any], supervisor: TaskSupervisor | None = None) -> dict[str, Any]:
    """Returns the context for a run's callbacks: that of the task that decided the run's state, or a smaller one if
    there is no such task. By default, the supervisor asks the server."""
    from airflow.sdk.execution_time import task_runner

    if spec.get("run_type") is None:
        return {"dag": dag, "run_id": spec["run_id"]}
    spec = {**spec, "fileloc": dag.fileloc}
    supervisor = task_runner.SUPERVISOR_COMMS = supervisor or TaskSupervisor(spec)
    events = triggering_events(supervisor, spec)
    if spec.get("task_id") not in dag.task_dict:
        details = startup.details({"map_index": -1, "try_number": 0, "max_tries": 0, **spec, "task_id": ""}, events)
        return {"dag": dag, "run_id": spec["run_id"], "dag_run": details.ti_context.dag_run}
    supervisor.task = dag.get_task(spec["task_id"])
    return instance(startup.details(spec, events), supervisor.task, dag.fileloc, supervisor).get_template_context()


def unmap(context: dict[str, Any]) -> None:
    """Replaces a mapped task by that of its map index, without rendering its templates."""
    task = context["task"]
    if getattr(task, "is_mapped", False):
        from airflow.sdk.execution_time.context import context_update_for_unmapped

        context_update_for_unmapped(context, task.unmap(task._expand_mapped_kwargs(context)[0]))


def send_email(context: dict[str, Any]) -> None:
    """Sends the e-mail of a failed try whose process was killed. Raises the errors that Airflow would log."""
    from airflow.sdk.execution_time import task_runner

    failures: list[Any] = []
    log = SimpleNamespace(error=lambda text, *_: failures.append(AirflowException(text)),
                          exception=lambda *_, **__: failures.append(sys.exc_info()[1]))
    # Airflow 3.0 has no such function.
    task_runner._send_error_email_notification(context["task"], context["ti"], context, context["exception"], log)
    if failures:
        raise failures[0]
