"""Answers the server's questions that need code of the project's environment: run times of custom timetables, callbacks
of DAGs, installed providers, and connection tests. Writes the answer as JSON to a descriptor."""

from __future__ import annotations

import json
import os
import sys
from datetime import datetime

from leoflow.common import leoflow_server, run_events, task_log
from leoflow.common.dates import stamp, task_datetime
from leoflow.common.exceptions import AirflowException
from leoflow.common.reports import clean, explain
from leoflow.entry import backends, libraries
from leoflow.entry.workspace import Workspace, prepare
from leoflow.running import loading

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def ask(timetable, data_interval, time_restriction, run_type, question):
    """Calls a custom timetable; returns the next runs, or the data interval of a manual run. `data_interval`,
    `time_restriction` and `run_type` are the classes of its SDK and the type of scheduled runs."""
    if question["kind"] == "manual":
        run_after = task_datetime(datetime.fromisoformat(question["run_after"]))
        manual_interval = timetable.infer_manual_data_interval(run_after=run_after)
        return {"interval": [stamp(manual_interval.start), stamp(manual_interval.end)]}
    last = question["last"] and data_interval(*(task_datetime(datetime.fromisoformat(text)) for text in question["last"]))
    earliest, latest = (None if question[name] is None else task_datetime(datetime.fromisoformat(question[name]))
                        for name in ("earliest", "latest"))
    restriction = time_restriction(earliest, latest, question["catchup"])
    infos = []
    for _ in range(question.get("count", 1)):
        info = timetable.next_dagrun_info(last_automated_data_interval=last, restriction=restriction)
        if info is None:
            break
        last = info.data_interval
        interval = last and [stamp(last.start), stamp(last.end)]
        run_id = timetable.generate_run_id(run_type=run_type, run_after=info.run_after, data_interval=last)
        infos.append({"run_after": stamp(info.run_after), "interval": interval, "run_id": run_id})
    return {"infos": infos}


def find_dag(options):
    """Runs the DAG file; returns the DAG with the id `options["dag_id"]`."""
    workspace = Workspace(options["roots"], options["sources"])
    environment = dict(os.environ)
    workspace.enter()
    libraries.restart_if_too_late(environment, "ask", options)
    workspace.install()
    for dag in backends.current().dags_of(workspace, options["path"], options.get("settings")):
        if dag.dag_id == options["dag_id"]:
            return dag
    raise AirflowException(f"{options['path']} no longer defines the DAG {options['dag_id']!r}")


def answer_to(options, question):
    if question["kind"] in ("providers", "test_connection"):
        from leoflow.sdk import named_classes, providers

        # The question belongs to no project, so the classes in Airflow's settings, which a project may define, cannot
        # be imported.
        with named_classes.hide_settings():
            if question["kind"] == "providers":
                return {"providers": providers.installed()}
            return providers.test_connection(question["connection_id"])
    if question["kind"] == "callback":
        return {"problems": call_back(options)}
    return ask(*backends.current().timetable_of(find_dag(options)), question)


def call_back(options):
    """Calls the listeners and the callbacks of the DAG; returns the problems, also one that prevented the calls."""
    try:
        dag, backend = find_dag(options), backends.current()
        # Not before: as in a parse, the import of the file may only read Variables.
        leoflow_server.configure(options["socket"], options["token"], retry_seconds=5)
        backend.begin_log(task_log.to_terminal)
        return backend.call_back(dag, options["spec"])
    except BaseException as error:
        return [run_events.problem(None, error)]


def main(options: dict[str, Any]) -> None:
    loading.begin()
    prepare(options.get("limits"), options.get("support"))
    if options.get("socket"):
        leoflow_server.configure(options["socket"], retry_seconds=5)
    try:
        answer = answer_to(options, options["question"])
    except BaseException as error:
        answer = {"error": clean(explain(error))}
    sys.stdout.flush()
    sys.stderr.flush()
    with os.fdopen(options["descriptor"], "wb") as pipe:
        pipe.write(json.dumps(clean(answer)).encode())
    os._exit(0)
