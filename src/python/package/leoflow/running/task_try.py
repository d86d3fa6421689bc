"""One try of one task, and what became of it."""

from __future__ import annotations

import os
import signal

from leoflow.authoring.xcom_arg import concrete
from leoflow.common import current, plain_files, task_log
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
from leoflow.common.task_log import show
from leoflow.common.values import encode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any



class Deadline:
    """execution_timeout, inside the process so that the task's own clean-up runs. The process
    outside ends what does not care."""

    def __init__(self, task, folder=None):
        self.task = task
        self.folder = folder

    def __enter__(self):
        def over(_number, _frame):
            raise AirflowTaskTimeout(f"Timeout, {self.task.task_id} ran for longer than {self.task.execution_timeout}")

        def terminated(_number, _frame):
            raise AirflowTaskTerminated("Task received SIGTERM signal")

        if self.folder:
            plain_files.mark(os.path.join(self.folder, "began"))
        signal.signal(signal.SIGALRM, over)
        signal.signal(signal.SIGTERM, terminated)
        if self.task.execution_timeout is not None:
            limit = self.task.execution_timeout.total_seconds()
            if limit <= 0:
                raise AirflowTaskTimeout(f"Timeout, {self.task.task_id} has no time at all")
            signal.setitimer(signal.ITIMER_REAL, limit)

    def __exit__(self, *_):
        signal.setitimer(signal.ITIMER_REAL, 0)


class Try:
    """One try: what it is, and what became of it."""

    def __init__(self, task, context, folder=None, most_elements=1024):
        """`most_elements` is how many it may return where others are mapped over it: Airflow's `max_map_length`."""
        self.most_elements = most_elements
        self.context = context
        self.ti = context["ti"]
        self.folder = folder
        self.origin = task
        self.task = task
        self.result = {}

    def prepare(self) -> None:
        """The task as it is to run: for its element, with its templates rendered."""
        if self.origin.is_mapped:
            task = self.origin.unmapped(self.context, self.ti.map_index)
            # What another task returned is a value, not a template; it is the same object in the task's fields.
            given = self.origin.expand_input.kwargs if hasattr(self.origin.expand_input, "kwargs") else {}
            as_they_are = [self.origin.given[name] for name, value in given.items() if hasattr(value, "resolve")]
        else:
            task, as_they_are = self.origin.prepare_for_execution(), []
        self.task = task
        self.context["task"] = task
        self.ti.task = task
        os.environ.update(self.ti.airflow_environment())
        if type(task).render_template_fields is _base_render:
            from leoflow.authoring.templates import render_fields

            render_fields(task, self.context, task, None, as_they_are)
        else:
            task.render_template_fields(self.context)
        self.note_rendered()
        self.note_map_index(swallow=True)

    def note_rendered(self):
        if self.task.template_fields:
            from leoflow.authoring.templates import shown

            self.result["rendered"] = shown(self.task)

    def note_map_index(self, swallow):
        template = self.task.map_index_template
        if not template or self.ti.map_index < 0:
            return
        from leoflow.authoring.templates import Renderer

        try:
            self.result["map_index"] = str(Renderer(self.task, self.context).render(template))
            self.ti.rendered_map_index = self.result["map_index"]
        except Exception:
            # It may name what the task puts into the context later.
            if not swallow:
                raise

    def execute(self):
        """Runs it; returns its XComs as JSON texts."""
        current.set_context(self.context)
        try:
            self.prepare()
            task, context = self.task, self.context
            if task._pre_execute_hook is not None:
                task._pre_execute_hook(context)
            if type(task).pre_execute is not _base_pre_execute:
                task.pre_execute(context)
            self.call_back(task.on_execute_callback)
            with Deadline(task, self.folder):
                try:
                    value = self.begin(task)
                except (AirflowTaskTimeout, AirflowTaskTerminated, KeyboardInterrupt):
                    # Here and not in the handler: what was interrupted has let go of its locks.
                    task.on_kill()
                    raise
                except Exception:
                    # What it has put into the context until here may be in its name.
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
        """From the beginning, or where it goes on after it was deferred."""
        next_method = self.ti.next_method
        if not next_method:
            return task.execute(self.context)
        from leoflow.running.deferral import resume

        return resume(task, next_method, self.ti.next_kwargs, self.context)

    def outputs(self, value):
        """The XComs of a result, as JSON texts by key."""
        task = self.task
        if is_mapped_over(self.origin):
            check_mappable(task, value, self.most_elements)
        if value is None or not task.do_xcom_push:
            return {}
        value = concrete(value)
        xcoms = {}
        if task.multiple_outputs:
            from leoflow.authoring.taskflow import check_outputs

            check_outputs(value)
            xcoms = {key: encode(key, one) for key, one in value.items()}
        return {**xcoms, "return_value": encode("return_value", value)}

    def run(self) -> dict[str, Any]:
        """What became of it: state, reason, XComs."""
        try:
            xcoms = self.execute()
            events = self.context["outlet_events"].told() if self.task.outlets else []
            self.result.update(state="success", xcoms=xcoms, **({"asset_events": events} if events else {}))
        except DownstreamTasksSkipped as decided:
            events = self.context["outlet_events"].told() if self.task.outlets else []
            self.result.update(state="success", skipped_tasks=list(decided.tasks), **({"asset_events": events} if events else {}))
        except AirflowSkipException as error:
            task_log.say("info", task_log.TASK, "Skipping task.", reason=str(error))
            self.fail("skipped", error)
        except AirflowRescheduleException as error:
            self.result.update(state="up_for_reschedule", due=error.reschedule_date.isoformat())
        except TaskDeferred as deferred:
            self.defer(deferred)
        except (AirflowFailException, AirflowSensorTimeout, AirflowTaskTerminated) as error:
            show(error)
            self.fail("failed", error, retry=isinstance(error, AirflowTaskTerminated))
        except BaseException as error:
            show(error)
            hint = missing_date(error) if self.ti.dag_run.logical_date is None else None
            if hint:
                task_log.say("error", task_log.OWN, hint)
            self.fail("failed", error, retry=True)
            if hint:
                self.result["reason"] += f" ({hint})"
        return self.result

    def defer(self, deferred):
        from leoflow.running.deferral import told

        try:
            self.result.update(state="deferred", deferral=told(deferred))
        except Exception as error:
            show(error)
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
                show(error, "Failed to run task callback")

    def tell(self) -> None:
        """The user's callbacks, once it is known how the try has ended."""
        state = self.result["state"]
        names = {"success": "on_success_callback", "skipped": "on_skipped_callback"}
        if state == "failed":
            again = self.result["retry"] and self.ti.may_retry
            names["failed"] = "on_retry_callback" if again else "on_failure_callback"
            self.ti.state = "up_for_retry" if again else "failed"
        else:
            self.ti.state = state
        if state in names:
            functions = getattr(self.task, names[state])
            if functions:
                current.set_context(self.context)
                self.call_back(functions)
                current.set_context(None)


def _own(name):
    from leoflow.authoring.abstract_operator import AbstractOperator

    return getattr(AbstractOperator, name)


_base_render = _own("render_template_fields")
_base_pre_execute = _own("pre_execute")
_base_post_execute = _own("post_execute")


def is_mapped_over(task):
    """Whether other tasks or groups are mapped over what it returns."""
    if task.is_mapped:
        return False
    dag = task.dag
    for other in dag.tasks:
        if other.is_mapped and task in other.expand_input.operators():
            return True
    groups = (one for one in dag.group_ids.values() if hasattr(one, "expand_input"))
    return any(task in group.expand_input.operators() for group in groups)


def check_mappable(task, value, most):
    """`most` is how many elements there may be."""
    from collections.abc import Mapping, Sequence

    if value is None or not task.do_xcom_push:
        raise UnmappableXComTypePushed("did not push XCom for task mapping")
    if isinstance(value, (str, bytes)) or not isinstance(value, (Sequence, Mapping)):
        raise UnmappableXComTypePushed(f"unmappable return type {type(value).__qualname__!r}")
    if len(value) > most:
        told = f"unmappable return value length: {len(value)} > {most}; the setting max_map_length allows more"
        raise UnmappableXComLengthPushed(told)
