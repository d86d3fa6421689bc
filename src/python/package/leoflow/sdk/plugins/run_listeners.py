"""Calls the listeners of DAG runs, which plugins of the project or of its packages bring, through Airflow's own listener
manager."""

from __future__ import annotations

import os

from leoflow.common import real_sdk, run_events
from leoflow.common.dates import parse_time
from leoflow.sdk import startup
from leoflow.sdk.plugins import mentions

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


# In the names of all hooks.
WORD = "on_dag_run_"


def may_exist(word: str = WORD) -> bool:
    """True if a plugin of the project or of an installed package seems to listen to DAG runs, or has another word."""
    return mentions.in_project(word) or mentions.in_packages(word)


def manager():
    """Returns the listener manager of Airflow's scheduler; that of its tasks does not know the hooks of DAG runs."""
    from airflow.listeners.listener import get_listener_manager

    return get_listener_manager()


# Fields of the scheduler's model that Leoflow has no values for.
UNKNOWN = {"backfill_id": None, "bundle_version": None, "context_carrier": None, "created_dag_version": None,
           "creating_job_id": None, "dag_versions": (), "deadlines": (), "log_template_id": None, "scheduled_by_job_id": None}


class ListenedRun:
    """A DAG run as listeners see it: the fields of the SDK's model, and those that only the scheduler's model has."""

    def __init__(self, dag: Any, spec: dict[str, Any]):
        from airflow.utils.state import DagRunState
        from airflow.utils.types import DagRunTriggeredByType, DagRunType

        vars(self).update(UNKNOWN)
        nothing = {"map_index": -1, "try_number": 0, "max_tries": 0}
        details = startup.details({**nothing, **spec, "task_id": "", "fileloc": dag.fileloc}, [])
        self.model = details.ti_context.dag_run
        self.dag = dag
        # The scheduler's classes, whose members are printed as their values.
        self.state = DagRunState(spec["state"])
        self.run_type = member(DagRunType, spec["run_type"])
        self.triggered_by = member(DagRunTriggeredByType, spec.get("triggered_by"))
        self.triggering_user_name = spec.get("triggering_user_name")
        self.version_number = spec.get("version_number")
        self.clear_number = spec.get("clear_number", 0)
        self.queued_at = parse_time(spec.get("queued_at"))
        self.end_date = parse_time(spec.get("end_date"))

    def __getattr__(self, name):
        if name == "model":
            # While it is being unpickled, in a process that a listener has started.
            raise AttributeError(name)
        return getattr(self.model, name)

    def __repr__(self):
        return f"<DagRun {self.dag_id} @ {self.logical_date}: {self.run_id}, state:{self.state}>"

    def get_state(self):
        return self.state

    def get_dag(self):
        return self.dag


def member(kind, value):
    """Returns the member of an enumeration, or the value itself if this version of Airflow does not know it."""
    return next((item for item in kind if item.value == value), value)


def allow_database_settings():
    """Lets listeners configure the database, as in Airflow's scheduler, which OpenLineage does in the processes that it
    starts. There is no database: what they then ask it fails."""
    from airflow import settings

    settings.configure_orm = lambda *_, **__: None
    os.environ["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"] = real_sdk.no_database(real_sdk.home())


def notify(dag: Any, spec: dict[str, Any]) -> list[dict[str, Any]]:
    """Calls the listeners of the run's state; returns the problems."""
    if not may_exist():
        return []
    name = run_events.HOOKS[spec["state"]]
    try:
        hooks = manager().hook
        hook = getattr(hooks, name)
        if not hook.get_hookimpls():
            return []
        allow_database_settings()
        run = ListenedRun(dag, spec)
    except Exception as error:
        return [run_events.problem(name, error)]
    component, problems = run_events.Component(), []
    for called, call in (
        ("on_starting", lambda: hooks.on_starting(component=component)),
        (name, lambda: hook(dag_run=run, msg=run_events.message(spec))),
        # Listeners wait for what they do in the background.
        ("before_stopping", lambda: hooks.before_stopping(component=component)),
    ):
        try:
            call()
        except Exception as error:
            problems.append(run_events.problem(called, error))
    return problems
