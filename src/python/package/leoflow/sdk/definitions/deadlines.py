"""Deadlines of DAG runs: what the scheduler knows of an alert, and the call of its callback.
<https://airflow.apache.org/docs/apache-airflow/stable/howto/deadline-alerts.html>"""

from __future__ import annotations

import asyncio
import inspect

from leoflow.common import run_events
from leoflow.common.dates import moment, parse_time
from leoflow.common.structure import unless_none

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from airflow.sdk import DAG

# Classes of Airflow's references, which the scheduler evaluates.
REFERENCES = ("AverageRuntimeDeadline", "DagRunLogicalDateDeadline", "DagRunQueuedAtDeadline", "FixedDatetimeDeadline")
# Fields of a run in Airflow's API that the callback gets by the same names.
RUN_FIELDS = ("dag_id", "logical_date", "queued_at", "end_date", "data_interval_start", "data_interval_end", "run_after",
              "run_type", "state", "triggered_by", "triggering_user_name", "conf", "note", "partition_key", "partition_date")


def alerts(dag: DAG) -> list[Any]:
    """Returns the alerts of a DAG; none for versions of Airflow without them."""
    return list(getattr(dag, "deadline", None) or ())


def unsupported(alert: Any) -> str | None:
    """Names what the scheduler cannot evaluate of the reference of an alert."""
    kind = type(alert.reference)
    if kind.__module__.partition(".")[0] != "airflow" or kind.__name__ not in REFERENCES:
        return f"the custom deadline reference {kind.__name__}"
    for name in ("max_runs", "min_runs"):
        value = getattr(alert.reference, name, None)
        if value is not None and type(value) is not int:
            return f"{name}={value!r} of a deadline"
    return None


def alert_structure(alert: Any) -> dict[str, Any]:
    variable = getattr(alert.interval, "key", None)
    return {
        **unless_none("name", getattr(alert, "name", None)),
        "reference": alert.reference.serialize_reference(),
        **unless_none("interval", seconds(alert.interval) if variable is None else seconds_of(variable)),
        **unless_none("variable", variable),
        "callback": alert.callback.path,
        "is_async": is_async(alert.callback),
    }


def is_async(callback):
    return any(kind.__name__ == "AsyncCallback" for kind in type(callback).__mro__)


def seconds(interval):
    """Returns an interval in seconds, which some versions of Airflow also accept as a number."""
    return interval.total_seconds() if hasattr(interval, "total_seconds") else float(interval)


def seconds_of(variable):
    """Returns the interval that a Variable holds, or None. The file is parsed again when Variables change."""
    from airflow.sdk import Variable

    try:
        return float(int(Variable.get(variable, default=None)))
    except (OverflowError, TypeError, ValueError):
        return None


def call_back(dag: DAG, spec: dict[str, Any]) -> list[dict[str, Any]]:
    """Calls the callback of a deadline that a run has missed; returns the problems."""
    callback = alerts(dag)[spec["deadline"]["alert"]].callback
    # None in Airflow 3.1, if there are none.
    kwargs = {**(callback.kwargs or {}), "context": context_of(dag, spec)}
    try:
        function = imported(callback.path)
        if is_async(callback):
            asyncio.run(await_callback(function, kwargs))
        else:
            call(function, kwargs)
    except Exception as error:
        return [run_events.problem(callback.path, error)]
    return []


def imported(path):
    try:
        from airflow.sdk._shared.module_loading import import_string
    except ImportError:
        # Airflow 3.1 has it elsewhere.
        from airflow.utils.module_loading import import_string
    return import_string(path)


async def await_callback(function, kwargs):
    await with_accepted(function, kwargs)


def call(function, kwargs):
    """Calls a function; a class, such as a notifier, is created, and called with the context."""
    result = with_accepted(function, kwargs)
    if not callable(result):
        return
    parameters = inspect.signature(result).parameters.values()
    if any(parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY, parameter.VAR_KEYWORD) for parameter in parameters):
        with_accepted(result, {"context": kwargs["context"]})
    else:
        result(kwargs["context"])


def with_accepted(function, kwargs):
    """Calls a function with the arguments, without the context if it does not accept that."""
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        parameters = {"context": None}
    accepts = "context" in parameters or any(parameter.kind == parameter.VAR_KEYWORD for parameter in parameters.values())
    return function(**(kwargs if accepts else {name: value for name, value in kwargs.items() if name != "context"}))


def context_of(dag, spec):
    """Returns the context of the callback: as in Airflow only the run, with the names of its API, and the deadline."""
    run = {name: spec.get(name) for name in RUN_FIELDS}
    start, end = (spec[name] and moment(spec[name]) for name in ("run_start_date", "end_date"))
    number = spec["version_number"]
    version = {"dag_id": dag.dag_id, "dag_display_name": dag.dag_display_name, "version_number": number, "bundle_version": str(number)}
    run.update(dag_run_id=spec["run_id"], start_date=spec["run_start_date"], dag_display_name=dag.dag_display_name,
               dag_versions=[version], bundle_version=str(number), last_scheduling_decision=None, team_name=None,
               duration=(end - start).total_seconds() if start and end else None)
    deadline = spec["deadline"]
    return {"dag_run": run, "deadline": {"id": deadline["id"], "deadline_time": parse_time(deadline["deadline_time"])}}
