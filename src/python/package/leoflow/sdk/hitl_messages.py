"""What tasks ask people, by Airflow's own SDK. From 3.3 on such a task is let go and goes on with the answer; before, a trigger
looks for it."""

from __future__ import annotations

import datetime
import json
import os
import sys

from leoflow.common.dates import moment
from leoflow.common.exceptions import AirflowException
from leoflow.sdk import older_versions
from leoflow.sdk.models import make, of_kind

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

# What the datastore has made of an answer: the arguments as they were, and the event for them.
INPUT = "leoflow_input"


class Questions:
    """`of` gives the dag_id, run_id, task_id and map_index of a task instance by Airflow's id for it."""

    def __init__(self, supervisor: Any, of: Callable[[Any], dict[str, Any]]):
        self.supervisor = supervisor
        self.of = of

    def answers(self) -> dict[str, Callable[[Any], Any]]:
        return {"CreateHITLDetailPayload": self.ask, "GetHITLDetailResponse": self.get, "UpdateHITLDetail": self.answer}

    def ask(self, message):
        asked = message.model_dump(mode="json")
        names = ("subject", "body", "options", "defaults", "multiple", "params", "assigned_users")
        self.supervisor.ask("hitl/ask", {name: asked[name] for name in names if asked.get(name) is not None}, "POST")
        return make("HITLDetailRequestResult", **{name: asked[name] for name in ("ti_id", *names)})

    def get(self, message):
        return self.response(self.supervisor.ask("hitl/get", self.of(message.ti_id)))

    def answer(self, message):
        told = {"chosen_options": message.chosen_options, "params_input": message.params_input or {}}
        return self.response(self.supervisor.ask("hitl/answer", {**self.of(message.ti_id), **told}))

    def response(self, found):
        from airflow.sdk.api.datamodels import _generated

        return of_kind(_generated.HITLDetailResponse, found)


def answered_here(question: dict[str, Any], deferral: dict[str, Any]) -> dict[str, Any]:
    """What a task of a run in the foreground goes on with: whoever is at the terminal is asked."""
    lines = [question["subject"], question.get("body") or "", f"options: {', '.join(question['options'])}"]
    sys.stderr.write("".join(f"  {line}\n" for line in lines if line))
    several = question.get("multiple")
    chosen = read("choose, separated by commas: " if several else "choose: ")
    event = {"chosen_options": [one.strip() for one in chosen.split(",")] if several else [chosen], "params_input": {},
             "responded_at": datetime.datetime.now(datetime.timezone.utc).isoformat(), "responded_by_user": None,
             "timedout": False}
    for name, param in (question.get("params") or {}).items():
        usual = param.get("value") if isinstance(param, dict) else param
        given = read(f"{name} [{usual}]: ")
        event["params_input"][name] = usual if not given else parsed(given)
    return {"next_method": deferral["next_method"], "next_kwargs": {INPUT: event, "kwargs": deferral["next_kwargs"]}}


def read(prompt):
    sys.stderr.write(f"  {prompt}")
    sys.stderr.flush()
    line = b""
    # No more than a line: what follows is for the next task, which has a process of its own.
    while not line.endswith(b"\n"):
        byte = os.read(0, 1)
        if not byte and not line:
            raise AirflowException("it asks for an answer, and there is nobody at the terminal to give one")
        if not byte:
            break
        line += byte
    return line.decode().strip()


def parsed(text):
    try:
        return json.loads(text)
    except ValueError:
        return text


def with_answer(kwargs: dict[str, Any] | None) -> Any:
    """The arguments that a task goes on with: an answer is in them as the trigger would have it."""
    if not isinstance(kwargs, dict) or INPUT not in kwargs:
        return kwargs
    event = dict(kwargs[INPUT])
    if event.get("responded_at"):
        event["responded_at"] = moment(event["responded_at"])
    return older_versions.encode({**older_versions.decode(kwargs["kwargs"] or {}), "event": event})
