"""Human-in-the-loop questions of Airflow's SDK. From Airflow 3.3 on, a task with a question ends its process and
resumes with the answer; before, a trigger polls for the answer."""

from __future__ import annotations

import datetime
import json
import os
import sys

from leoflow.common.dates import moment
from leoflow.common.exceptions import AirflowException
from leoflow.sdk import older_versions
from leoflow.sdk.messages.models import build_model, make

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

# Key under which the datastore adds the answer to a task's stored arguments.
INPUT = "leoflow_input"


class Questions:
    """Answers the SDK's messages about questions. `instance_of` maps Airflow's id of a task instance to a dict with its
    dag_id, run_id, task_id and map_index."""

    def __init__(self, supervisor: Any, instance_of: Callable[[Any], dict[str, Any]]):
        self.supervisor = supervisor
        self.instance_of = instance_of

    def answers(self) -> dict[str, Callable[[Any], Any]]:
        return {"CreateHITLDetailPayload": self.ask, "GetHITLDetailResponse": self.get, "UpdateHITLDetail": self.answer}

    def ask(self, message):
        question = message.model_dump(mode="json")
        names = ("subject", "body", "options", "defaults", "multiple", "params", "assigned_users")
        self.supervisor.ask("hitl/ask", {name: question[name] for name in names if question.get(name) is not None}, "POST")
        return make("HITLDetailRequestResult", **{name: question[name] for name in ("ti_id", *names)})

    def get(self, message):
        return self.response(self.supervisor.ask("hitl/get", self.instance_of(message.ti_id)))

    def answer(self, message):
        fields = {"chosen_options": message.chosen_options, "params_input": message.params_input or {}}
        return self.response(self.supervisor.ask("hitl/answer", {**self.instance_of(message.ti_id), **fields}))

    def response(self, fields):
        from airflow.sdk.api.datamodels import _generated

        return build_model(_generated.HITLDetailResponse, fields)


def answer_at_terminal(question: dict[str, Any], deferral: dict[str, Any]) -> dict[str, Any]:
    """Asks the user at the terminal, in a foreground run; returns `next_method` and `next_kwargs` of the task."""
    lines = [question["subject"], question.get("body") or "", f"options: {', '.join(question['options'])}"]
    sys.stderr.write("".join(f"  {line}\n" for line in lines if line))
    multiple = question.get("multiple")
    chosen = read("choose, separated by commas: " if multiple else "choose: ")
    event = {"chosen_options": [option.strip() for option in chosen.split(",")] if multiple else [chosen], "params_input": {},
             "responded_at": datetime.datetime.now(datetime.timezone.utc).isoformat(), "responded_by_user": None,
             "timedout": False}
    for name, param in (question.get("params") or {}).items():
        default = param.get("value") if isinstance(param, dict) else param
        text = read(f"{name} [{default}]: ")
        event["params_input"][name] = default if not text else parsed(text)
    return {"next_method": deferral["next_method"], "next_kwargs": {INPUT: event, "kwargs": deferral["next_kwargs"]}}


def read(prompt):
    """Reads a line from the terminal."""
    sys.stderr.write(f"  {prompt}")
    sys.stderr.flush()
    line = b""
    # Reads byte by byte to the end of the line: further input is for the next task, which runs in another process.
    while not line.endswith(b"\n"):
        byte = os.read(0, 1)
        if not byte and not line:
            raise AirflowException("the task asks for an answer, but standard input has ended")
        if not byte:
            break
        line += byte
    return line.decode().strip()


def parsed(text):
    """Parses a text as JSON; returns any other text as it is."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def with_answer(kwargs: dict[str, Any] | None) -> Any:
    """Returns the `next_kwargs` of a task, with an answer included as the event that a trigger would send."""
    if not isinstance(kwargs, dict) or INPUT not in kwargs:
        return kwargs
    event = dict(kwargs[INPUT])
    if event.get("responded_at"):
        event["responded_at"] = moment(event["responded_at"])
    return older_versions.encode({**older_versions.decode(kwargs["kwargs"] or {}), "event": event})
