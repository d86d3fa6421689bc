"""Runs one try of a task."""

from __future__ import annotations

import os
import signal
import threading
from datetime import datetime, timezone

from leoflow.authoring import plugins
from leoflow.authoring.mapping.xcom_arg import concrete
from leoflow.authoring.operators.abstract_operator import AbstractOperator
from leoflow.authoring.operators.templates import Renderer, render_fields, rendered_fields
from leoflow.authoring.states import TaskInstanceState
from leoflow.common import current, run_events, task_log
from leoflow.common.exceptions import (
    AirflowFailException,
    AirflowRescheduleException,
    AirflowSensorTimeout,
    AirflowSkipException,
    AirflowTaskTerminated,
    AirflowTaskTimeout,
    DownstreamTasksSkipped,
    TaskDeferred,
    UnmappableXComLengthPushed,
    UnmappableXComTypePushed,
)
from leoflow.common.reports import describe, missing_date
from leoflow.common.task_log import log_error
from leoflow.common.values import encode
from leoflow.running import keeper_pipe

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Deadline:
    """Enforces execution_timeout inside the process, so that the task can clean up. Its keeper (the process that
    supervises it) kills a task that ignores the timeout."""

    def __init__(self, task):
        self.task = task

    def __enter__(self):
        def timed_out(_number, _frame):
            raise AirflowTaskTimeout(f"Timeout, {self.task.task_id} ran for longer than {self.task.execution_timeout}")

        def terminated(_number, _frame):
            raise AirflowTaskTerminated("Task received SIGTERM signal")

        keeper_pipe.note_begin()
        if threading.current_thread() is not threading.main_thread():
            # `DAG.test()` in a thread, which gets no signals.
            return
        signal.signal(signal.SIGALRM, timed_out)
        signal.signal(signal.SIGTERM, terminated)
        if self.task.execution_timeout is not None:
            limit = self.task.execution_timeout.total_seconds()
            if limit <= 0:
                raise AirflowTaskTimeout(f"Timeout, {self.task.task_id} has an execution_timeout of {self.task.execution_timeout}")
            signal.setitimer(signal.ITIMER_REAL, limit)

    def __exit__(self, *_):
        if threading.current_thread() is threading.main_thread():
            signal.setitimer(signal.ITIMER_REAL, 0)


class Try:
    """One try, and its result."""

    def __init__(self, task, context, max_map_length=1024):
        """`max_map_length`, Airflow's setting, is the maximum number of elements in a result that other tasks are
        mapped over."""
        self.max_map_length = max_map_length
        self.context = context
        self.ti = context["ti"]
        self.origin = task
        self.task = task
        self.result = {}

    def prepare(self) -> None:
        """Creates the task of this map index and renders its templates."""
        if self.origin.is_mapped:
            task = self.origin.unmapped(self.context, self.ti.map_index)
            # Results of other tasks are values, not templates; the renderer recognizes them by identity.
            inputs = self.origin.expand_input.kwargs if hasattr(self.origin.expand_input, "kwargs") else {}
            unrendered = [self.origin.element_kwargs[name] for name, value in inputs.items() if hasattr(value, "resolve")]
        else:
            task, unrendered = self.origin.prepare_for_execution(), []
        self.task = task
        self.context["task"] = task
        self.ti.task = task
        os.environ.update(self.ti.airflow_environment())
        if type(task).render_template_fields is _base_render:
            render_fields(task, self.context, task, None, unrendered)
        else:
            task.render_template_fields(self.context)
        self.note_rendered()
        self.note_map_index(swallow=True)
        if "map_index" in self.result:
            self.ti.server.name_instance(self.result["map_index"])

    def note_rendered(self):
        if self.task.template_fields:
            self.result["rendered"] = rendered_fields(self.task)

    def note_map_index(self, swallow):
        """Renders `map_index_template`, the name of a mapped instance. With `swallow`, ignores errors."""
        template = self.task.map_index_template
        if not template or self.ti.map_index < 0:
            return
        try:
            self.result["map_index"] = str(Renderer(self.task, self.context).render(template))
            self.ti.rendered_map_index = self.result["map_index"]
        except Exception:
            # The template may use a name that the task adds to the context later.
            if not swallow:
                raise

    def execute(self):
        """Executes the task with its hooks; returns its XComs as JSON texts."""
        current.set_context(self.context)
        try:
            self.prepare()
            self.notify_listeners("on_task_instance_running", previous_state=TaskInstanceState.QUEUED, task_instance=self.ti)
            task, context = self.task, self.context
            if task.inlets or task.outlets:
                self.ti.server.check_assets()
            if task.start_from_trigger is True and task.start_trigger_args is not None and not self.ti.next_method:
                from leoflow.running.deferral import start_trigger

                # As in Airflow, no method and no callback of the task runs before the event.
                raise start_trigger(task, context)
            if task._pre_execute_hook is not None:
                task._pre_execute_hook(context)
            if type(task).pre_execute is not _base_pre_execute:
                task.pre_execute(context)
            self.call_back(task.on_execute_callback)
            with Deadline(task):
                try:
                    value = self.begin(task)
                except (AirflowTaskTimeout, AirflowTaskTerminated, KeyboardInterrupt):
                    # Not called in the signal handler: only here has the interrupted code released its locks.
                    task.on_kill()
                    raise
                except Exception:
                    # The template may use a name that the task has added to the context.
                    self.note_map_index(swallow=True)
                    raise
            if task._post_execute_hook is not None:
                task._post_execute_hook(context, value)
            if type(task).post_execute is not _base_post_execute:
                task.post_execute(context)
            if task.operator_name == "@task.bash":
                self.note_rendered()
            self.note_map_index(swallow=False)
            return self.outputs(value)
        finally:
            current.set_context(None)

    def begin(self, task):
        """Starts the task, or resumes it after it was deferred."""
        next_method = self.ti.next_method
        if not next_method:
            return task.execute(self.context)
        # Imported here, because it imports asyncio and few tasks defer.
        from leoflow.running.deferral import resume

        return resume(task, next_method, self.ti.next_kwargs, self.context)

    def outputs(self, value):
        """Returns the XComs for the value that the task returned, as JSON texts by key."""
        task = self.task
        if is_mapped_over(self.origin):
            check_mappable(task, value, self.max_map_length)
            self.result["mapped_length"] = len(value)
        if value is None or not task.do_xcom_push:
            return {}
        value = concrete(value)
        xcoms = {}
        if task.multiple_outputs:
            # Imported here, because few tasks without `@task` need it.
            from leoflow.authoring.operators.taskflow import check_outputs

            check_outputs(value)
            xcoms = {key: encode(key, item) for key, item in value.items()}
        return {**xcoms, "return_value": encode("return_value", value)}

    def run(self) -> dict[str, Any]:
        """Runs the try; returns its result: `task_result` in `messages.schema.json`."""
        try:
            xcoms = self.execute()
            events = self.context["outlet_events"].to_events() if self.task.outlets else []
            self.result.update(state="success", xcoms=xcoms, **({"asset_events": events} if events else {}))
        except DownstreamTasksSkipped as decided:
            events = self.context["outlet_events"].to_events() if self.task.outlets else []
            self.result.update(state="success", skipped_tasks=list(decided.tasks), **({"asset_events": events} if events else {}))
        except AirflowSkipException as error:
            task_log.log_event("info", task_log.TASK, "Skipping task.", reason=str(error))
            self.fail("skipped", error)
        except AirflowRescheduleException as error:
            self.result.update(state="up_for_reschedule", due=error.reschedule_date.isoformat())
        except TaskDeferred as deferred:
            self.defer(deferred)
        except (AirflowFailException, AirflowSensorTimeout, AirflowTaskTerminated) as error:
            log_error(error)
            self.fail("failed", error, retry=isinstance(error, AirflowTaskTerminated))
        except BaseException as error:
            log_error(error)
            hint = missing_date(error) if self.ti.dag_run.logical_date is None else None
            if hint:
                task_log.log_event("error", task_log.OWN, hint)
            self.fail("failed", error, retry=True)
            if hint:
                self.result["reason"] += f" ({hint})"
        return self.result

    def defer(self, deferred):
        from leoflow.running.deferral import stored_form

        try:
            self.result.update(state="deferred", deferral=stored_form(deferred))
        except Exception as error:
            log_error(error)
            self.fail("failed", error)

    def fail(self, state, error, retry=True):
        if state == "failed":
            self.context["exception"] = error
        self.result.update(state=state, retry=retry, reason=describe(error))

    def call_back(self, functions):
        for function in functions:
            try:
                function(self.context)
            except Exception as error:
                log_error(error, "Failed to run task callback")

    def run_callbacks(self) -> None:
        """Pushes the operator's links, then runs the user's callbacks for the outcome of the try."""
        self.push_links()
        state = self.result["state"]
        names = {"success": "on_success_callback", "skipped": "on_skipped_callback"}
        if state == "failed":
            will_retry = self.result["retry"] and self.ti.may_retry
            names["failed"] = "on_retry_callback" if will_retry else "on_failure_callback"
            self.ti.state = "up_for_retry" if will_retry else "failed"
        else:
            self.ti.state = state
        if state in names:
            functions = getattr(self.task, names[state])
            if functions:
                current.set_context(self.context)
                self.call_back(functions)
                current.set_context(None)
        self.notify_of_end(state)
        if state == "failed" and run_events.sends_email(self.task, self.ti.state):
            self.send_email()
        self.notify_listeners("before_stopping", component=run_events.Component())

    def send_email(self):
        from leoflow.running import error_email

        try:
            error_email.send(self.task, self.context)
        except Exception as error:
            log_error(error, "Failed to send the e-mail")

    def push_links(self):
        for link in plugins.links_of(self.task):
            try:
                self.ti.xcom_push(link.xcom_key, link.get_link(self.task, ti_key=self.ti))
            except Exception as error:
                log_error(error, "Failed to push an xcom for task operator extra link")

    def notify_of_end(self, state):
        """Calls the listeners of plugins for the outcome of the try, after its callbacks, as in Airflow."""
        if state in ENDED:
            self.ti.end_date = datetime.now(timezone.utc)
            arguments = {"previous_state": TaskInstanceState.RUNNING, "task_instance": self.ti}
            if state == "failed":
                arguments["error"] = self.context.get("exception")
            self.notify_listeners(f"on_task_instance_{state}", **arguments)

    def notify_listeners(self, hook, **arguments):
        error = plugins.call(hook, **arguments)
        if error is not None:
            log_error(error, "error calling listener")


# Outcomes of a try of which listeners are notified.
ENDED = ("success", "skipped", "failed")
# Methods of the base class; a task that does not override one need not call it.
_base_render = AbstractOperator.render_template_fields
_base_pre_execute = AbstractOperator.pre_execute
_base_post_execute = AbstractOperator.post_execute


def is_mapped_over(task):
    """True if another task or a group is mapped over the task's result."""
    if task.is_mapped:
        return False
    dag = task.dag
    for other in dag.tasks:
        if other.is_mapped and task in other.expand_input.operators():
            return True
    groups = (group for group in dag.group_ids.values() if hasattr(group, "expand_input"))
    return any(task in group.expand_input.operators() for group in groups)


def check_mappable(task, value, max_map_length):
    """Raises an error unless a result can be mapped over and has at most `max_map_length` elements."""
    from collections.abc import Mapping, Sequence

    if value is None or not task.do_xcom_push:
        raise UnmappableXComTypePushed("did not push XCom for task mapping")
    if isinstance(value, (str, bytes)) or not isinstance(value, (Sequence, Mapping)):
        raise UnmappableXComTypePushed(f"unmappable return type {type(value).__qualname__!r}")
    if len(value) > max_map_length:
        message = (f"unmappable return value length: {len(value)} > {max_map_length}; "
                   "the setting max_map_length raises the limit")
        raise UnmappableXComLengthPushed(message)
