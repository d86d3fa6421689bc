"""The supervisor of Airflow's task runner, in the task's own process. It answers messages with requests to Leoflow's
server, and records the result that the task reports.

The messages are those of `airflow.sdk.execution_time.comms`; the answers are those of Airflow's supervisor.
"""

from __future__ import annotations

import json

from leoflow.common import leoflow_server, masking
from leoflow.common.client import ServerError, quote
from leoflow.common.dates import iso
from leoflow.common.reports import clean
from leoflow.sdk import older_versions
from leoflow.sdk.messages import assets as asset_messages
from leoflow.sdk.messages import hitl as hitl_messages
from leoflow.sdk.messages import states as state_messages
from leoflow.sdk.messages import xcoms as xcom_messages
from leoflow.sdk.messages.models import make

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# What names a task instance; only one in a loop has an iteration.
INSTANCE_NAMES = ("dag_id", "run_id", "task_id", "map_index", "iteration")
CONNECTION_FIELDS = ("conn_type", "description", "host", "login", "password", "schema", "port", "extra")


class Supervisor:
    """Answers the messages that are allowed without a task, for example while a DAG file is parsed."""

    # Airflow closes the socket at the end if it is set.
    socket = None

    def __init__(self):
        self.answers = {
            "GetConnection": self.connection, "GetVariable": self.variable, "MaskSecret": self.mask,
        }

    def send(self, msg: Any = None, *_: Any, **others: Any) -> Any:
        """Answers a message; Airflow's task runner calls this method. Raises AirflowRuntimeError if the server refuses
        the request."""
        message = others["msg"] if msg is None else msg
        kind = type(message).__name__
        answer = self.answers.get(kind)
        if answer is None:
            raise self.problem(f"{kind} is not supported by Leoflow here")
        try:
            return answer(message)
        except ServerError as error:
            raise self.problem(str(error), status=error.status) from None

    async def asend(self, msg: Any) -> Any:
        """Answers a message without blocking the event loop."""
        import asyncio

        return await asyncio.to_thread(self.send, msg)

    def send_request(self, _log, msg):
        """Like `send`. Airflow 3.0 calls this method and then `get_message`."""
        self.last = self.send(msg)

    def get_message(self):
        return self.last

    @staticmethod
    def error(kind, **detail):
        """Returns an error response; `kind` is a member of Airflow's ErrorType."""
        from airflow.sdk.exceptions import ErrorType

        return make("ErrorResponse", error=ErrorType[kind], detail=detail)

    def problem(self, text, **detail):
        """Returns the exception for a request that failed."""
        from airflow.sdk.exceptions import AirflowRuntimeError

        return AirflowRuntimeError(self.error("API_SERVER_ERROR", message=text, **detail))

    # --- messages allowed without a task

    def connection(self, message):
        stored = leoflow_server.read("connections", message.conn_id)
        if stored is None:
            return self.error("CONNECTION_NOT_FOUND", conn_id=message.conn_id)
        hide("password", stored.get("password"))
        try:
            hide("extra", json.loads(stored.get("extra") or "null"))
        except ValueError:
            # `extra` may be any text.
            pass
        return make("ConnectionResult", conn_id=message.conn_id, **{name: stored.get(name) for name in CONNECTION_FIELDS})

    def variable(self, message):
        stored = leoflow_server.read("variables", message.key)
        if stored is None:
            return self.error("VARIABLE_NOT_FOUND", key=message.key)
        hide(message.key, stored["value"])
        return make("VariableResult", key=message.key, value=stored["value"])

    def mask(self, message):
        masking.mask_secret(message.value, message.name)


class TaskSupervisor(Supervisor):
    """Answers the messages of one try."""

    def __init__(self, spec: dict[str, Any]):
        super().__init__()
        self.spec = spec
        # The content of `result.json`, see `task_result` in `messages.schema.json`.
        self.result = {}
        # Why the task's retry policy decided as it did.
        self.retry_reason = None
        xcoms = self.xcoms = xcom_messages.XComs(spec, self)
        assets, states = asset_messages.Assets(self), state_messages.States(self)
        questions = hitl_messages.Questions(self, self.instance)
        self.answers.update({
            **xcoms.answers(), **assets.answers(), **states.answers(), **questions.answers(),
            "PutVariable": self.put_variable, "DeleteVariable": self.delete_variable, "GetVariableKeys": self.variable_keys,
            "TriggerDagRun": self.trigger, "GetDagRun": self.dag_run, "GetDagRunState": self.run_state, "GetDag": self.dag,
            "GetPreviousDagRun": self.previous_run, "GetPrevSuccessfulDagRun": self.previous_success,
            "GetPreviousTI": self.previous_instance, "GetDRCount": self.count_runs, "GetTICount": self.count_instances,
            "GetTaskStates": self.task_states, "GetTaskBreadcrumbs": self.breadcrumbs,
            "GetTaskRescheduleStartDate": self.first_start,
            "SetRenderedFields": self.set_rendered_fields, "SetRenderedMapIndex": self.set_rendered_map_index,
            "SkipDownstreamTasks": self.skip_downstream_tasks,
            "SucceedTask": self.succeed_task, "TaskState": self.end_task, "RetryTask": self.retry_task,
            "RescheduleTask": self.reschedule_task, "DeferTask": self.defer_task,
            "AwaitInputTask": self.await_input_task, "ResendLoggingFD": lambda _: None,
            "UpdateDagRunNote": self.update_note,
            # The keeper enforces it from outside, and knows it from the DAG's structure.
            "SetExecutionTimeout": lambda _: None,
        })

    def ask(self, path: str, body: Any = None, method: str | None = None) -> Any:
        """Sends a request to the server; `path` is below `/task/`."""
        return leoflow_server.client().request(method or ("GET" if body is None else "POST"), f"/task/{path}", body)

    # --- variables

    def put_variable(self, message):
        hide(message.key, message.value)
        leoflow_server.write("PUT", message.key, {"value": message.value, "description": message.description})
        return make("OKResponse", ok=True)

    def delete_variable(self, message):
        leoflow_server.write("DELETE", message.key, None)
        return make("OKResponse", ok=True)

    def variable_keys(self, message):
        body = {"prefix": message.prefix, "limit": message.limit, "offset": message.offset}
        return make("VariableKeysResult", **self.ask("variable-keys", body))

    # --- runs

    def trigger(self, message):
        body = {"dag_id": message.dag_id, "run_id": message.run_id, "conf": message.conf or {},
                "logical_date": iso(message.logical_date), "run_after": iso(getattr(message, "run_after", None)),
                "note": getattr(message, "note", None), "reset": bool(message.reset_dag_run)}
        if getattr(message, "partition_key", None) is not None:
            body["partition_key"] = message.partition_key
        try:
            self.ask("runs/trigger", body)
        except ServerError as error:
            if error.status == 409:
                return self.error("DAGRUN_ALREADY_EXISTS", dag_id=message.dag_id, run_id=message.run_id)
            raise
        return make("OKResponse", ok=True)

    def dag(self, message):
        return make("DagResult", **self.ask(f"dags/{quote(message.dag_id)}"))

    def dag_run(self, message):
        run = self.ask("runs/get", {"dag_id": message.dag_id, "run_id": message.run_id})
        return make("DagRunResult", **run_fields(run))

    def run_state(self, message):
        return make("DagRunStateResult", **self.ask("runs/state", {"dag_id": message.dag_id, "run_id": message.run_id}))

    def previous_run(self, message):
        body = {"dag_id": message.dag_id, "logical_date": iso(message.logical_date), "state": plain(message.state)}
        run = self.ask("runs/previous", body)
        return make("PreviousDagRunResult", dag_run=None if run is None else run_fields(run))

    def previous_success(self, _message):
        return make("PrevSuccessfulDagRunResult", **(self.ask("previous") or {}))

    def update_note(self, message):
        self.ask("runs/note", {"note": message.note}, "PUT")

    def count_runs(self, message):
        body = {"dag_id": message.dag_id, "run_ids": message.run_ids, "dates": dates(message), "states": message.states}
        return make("DRCount", **self.ask("runs/count-all", body))

    # --- task instances

    def selection(self, message):
        """Returns the filter of a message about several task instances."""
        return {"dag_id": message.dag_id, "map_index": message.map_index, "task_ids": message.task_ids,
                "group_id": message.task_group_id, "run_ids": message.run_ids, "dates": dates(message)}

    def count_instances(self, message):
        return make("TICount", **self.ask("instances/count", {**self.selection(message), "states": message.states}))

    def task_states(self, message):
        return make("TaskStatesResult", task_states=self.ask("instances/states", self.selection(message)))

    def breadcrumbs(self, message):
        breadcrumbs = self.ask("instances/breadcrumbs", {"dag_id": message.dag_id, "run_id": message.run_id})
        return make("TaskBreadcrumbsResult", breadcrumbs=breadcrumbs)

    def previous_instance(self, message):
        body = {"dag_id": message.dag_id, "task_id": message.task_id, "map_index": message.map_index,
                "logical_date": iso(message.logical_date), "state": plain(message.state)}
        loop = self.spec.get("loop")
        if loop and message.dag_id == self.spec["dag_id"] and message.task_id in loop["tasks"]:
            body["iteration"] = self.spec["iteration"]
        return make("PreviousTIResult", task_instance=self.ask("instances/previous", body))

    def first_start(self, _message):
        first = self.spec.get("first_start_date")
        return make("TaskRescheduleStartDate", start_date=first)

    # --- reports of the task

    def set_rendered_fields(self, message):
        self.result["rendered"] = message.model_dump(mode="json")["rendered_fields"]
        return make("OKResponse", ok=True)

    def set_rendered_map_index(self, message):
        self.result["map_index"] = message.rendered_map_index
        try:
            self.ask("map-index-name", {"name": clean(message.rendered_map_index)})
        except ServerError:
            # The server of an older release does not know the request; the result of the try has the name, too.
            pass
        return make("OKResponse", ok=True)

    def skip_downstream_tasks(self, message):
        self.result["skipped_tasks"] = [task if isinstance(task, str) else task[0] for task in message.tasks]

    def record_map_index_name(self, message):
        name = getattr(message, "rendered_map_index", None)
        if name:
            self.result["map_index"] = name

    def succeed_task(self, message):
        self.record_map_index_name(message)
        self.result.update(state="success", xcoms=self.xcoms.take_return_value(), mapped_length=self.xcoms.mapped_length)
        decision = getattr(message, "loop_decision", None)
        if decision is not None:
            self.result["loop_stops"] = decision.stop
            if decision.reason:
                self.result["reason"] = decision.reason
        events = asset_messages.outlet_events(self.task, message.outlet_events or [])
        if events:
            self.result["asset_events"] = events

    def end_task(self, message):
        self.record_map_index_name(message)
        self.xcoms.flush()
        state = plain(message.state)
        self.retry_reason = getattr(message, "retry_reason", None)
        self.result.update(state="skipped" if state == "skipped" else "failed", retry=False)

    def retry_task(self, message):
        self.xcoms.flush()
        self.result.update(state="failed", retry=True)
        self.retry_reason = getattr(message, "retry_reason", None)
        delay = getattr(message, "retry_delay_seconds", None)
        if delay is not None:
            self.result["retry_delay"] = delay

    def reschedule_task(self, message):
        self.xcoms.flush()
        self.result.update(state="up_for_reschedule", due=iso(message.reschedule_date))

    def defer_task(self, message):
        kwargs = message.model_dump(mode="json")["trigger_kwargs"] or {}
        self.suspend(message, "deferred", message.classpath, kwargs, message.trigger_timeout)

    def await_input_task(self, message):
        self.suspend(message, "awaiting_input", "", {}, message.timeout)

    def suspend(self, message, state, classpath, kwargs, timeout):
        """Records the state of a task whose process ends and that resumes later."""
        self.record_map_index_name(message)
        self.xcoms.flush()
        self.result.update(state=state, deferral={
            "classpath": classpath, "kwargs": kwargs, "timeout": None if timeout is None else timeout.total_seconds(),
            "next_method": message.next_method, "next_kwargs": message.model_dump(mode="json")["next_kwargs"] or {},
        })

    def instance(self, _):
        """Returns the ids of the task's own instance, the only one that it may ask about."""
        return {name: self.spec[name] for name in INSTANCE_NAMES if name in self.spec}

    # The operator, set once the DAG is loaded.
    task = None


def hide(name, value):
    """Masks a secret in the output of Airflow's loggers and in all other output."""
    masking.mask_sensitive(name, value)
    try:
        from airflow.sdk.log import _secrets_masker
    except ImportError:
        from airflow.sdk.execution_time.secrets_masker import _secrets_masker
    if value:
        _secrets_masker().add_mask(value, name)


def dates(message):
    return None if message.logical_dates is None else [iso(date) for date in message.logical_dates]


def plain(value: Any) -> Any:
    """Returns the value of an enumeration member; other values as they are."""
    return getattr(value, "value", value)


def run_fields(run: dict[str, Any]) -> dict[str, Any]:
    """Returns the fields of a run, with defaults for fields that the models of some versions require."""
    fields = {"clear_number": 0, "end_date": None, "consumed_asset_events": [], "partition_key": None, **run}
    return {**fields, "run_type": older_versions.run_type(fields["run_type"])}
