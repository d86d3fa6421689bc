"""The startup message for Airflow's task runner."""

from __future__ import annotations

import datetime
import os
import uuid

from leoflow.sdk import older_versions
from leoflow.sdk.messages import assets as asset_messages
from leoflow.sdk.messages import hitl as hitl_messages
from leoflow.sdk.messages.models import make
from leoflow.sdk.supervisor import run_fields

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

BUNDLE = "leoflow"
# Namespace of the UUIDs that Airflow requires: Leoflow's task instances have none, so they are derived from names.
NAMES = uuid.UUID("8a4b5a9e-9c35-4e0b-9d55-1d3a0d6a1c52")
LOOP_FIELDS = ("node_id", "max_iterations", "terminal_task_id", "terminal_is_mapped")


def instance_id(spec: dict[str, Any]) -> uuid.UUID:
    names = ("dag_id", "run_id", "task_id", "map_index", "try_number", "iteration")
    parts = [spec[name] for name in names if name != "iteration" or spec.get(name) is not None]
    return uuid.uuid5(NAMES, "\0".join(map(str, parts)))


def version_id(dag_id: str) -> uuid.UUID:
    return uuid.uuid5(NAMES, dag_id)


def details(spec: dict[str, Any], events: list[dict[str, Any]], context_carrier: dict[str, str] | None = None) -> Any:
    """Returns the startup message. `events` are the asset events that triggered the run, `context_carrier` the trace
    context of the try."""
    now = datetime.datetime.now(datetime.timezone.utc)
    names = ("dag_id", "run_id", "logical_date", "data_interval_start", "data_interval_end", "run_after", "run_type", "note",
             "partition_key", "partition_date")
    run = run_fields({
        **{name: spec.get(name) for name in names}, "start_date": spec.get("run_start_date"), "state": "running",
        "conf": spec.get("conf"), "consumed_asset_events": [asset_messages.triggering(event) for event in events],
        "triggering_user_name": None,
    })
    next_kwargs = hitl_messages.with_answer(spec.get("next_kwargs"))
    context = {
        "dag_run": run, "max_tries": spec["max_tries"], "task_reschedule_count": spec.get("reschedules", 0),
        "variables": [], "connections": [], "xcom_keys_to_clear": [], "should_retry": bool(spec.get("may_retry")),
        "next_method": spec.get("next_method"), "next_kwargs": older_versions.encode_if_needed(next_kwargs),
        "start_date": spec.get("first_start_date") or now,
    }
    if spec.get("loop"):
        loop = spec["loop"]
        context["loop"] = {"index": spec["iteration"], **{name: loop[name] for name in LOOP_FIELDS}}
    task = {name: spec[name] for name in ("dag_id", "run_id", "task_id", "map_index", "try_number")}
    task.update(id=instance_id(spec), dag_version_id=version_id(spec["dag_id"]), hostname=os.uname().nodename,
                context_carrier=context_carrier)
    return make(
        "StartupDetails", ti=task, dag_rel_path=os.path.basename(spec["fileloc"]), ti_context=context, start_date=now,
        bundle_info={"name": BUNDLE, "version": None}, sentry_integration="", requests_fd=0,
    )


def next_method(ti: Any) -> str | None:
    """Returns the method with which a deferred task resumes; None for a new try."""
    context = ti._ti_context_from_server
    return context.next_method if context else None


class Bundle:
    """The folder of the DAG's files as an Airflow bundle, which needs no download and no lock."""

    name = BUNDLE
    version = None
    supports_versioning = False

    def __init__(self, path):
        self.path = path

    def initialize(self):
        pass
