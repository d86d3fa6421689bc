"""What only code of the user's environment can answer: when a DAG is next due by a timetable of its own, what its callbacks do,
which providers there are, and whether a connection works. The answer is JSON, on a descriptor."""

from __future__ import annotations

import json
import os
import sys
from datetime import datetime

from leoflow.common import leoflow_server
from leoflow.common.dates import of, stamp
from leoflow.common.exceptions import AirflowException
from leoflow.common.reports import clean, explain
from leoflow.entry import libraries, sides
from leoflow.entry.workspace import Workspace, prepare

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def ask(timetable, data_interval, time_restriction, run_type, question):
    """What a timetable of the user's own answers, as JSON. With the classes and the type of scheduled runs that it knows."""
    if question["kind"] == "manual":
        run_after = of(datetime.fromisoformat(question["run_after"]))
        found = timetable.infer_manual_data_interval(run_after=run_after)
        return {"interval": [stamp(found.start), stamp(found.end)]}
    last = question["last"] and data_interval(*(of(datetime.fromisoformat(one)) for one in question["last"]))
    earliest, latest = (None if question[name] is None else of(datetime.fromisoformat(question[name]))
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


def find(options):
    workspace = Workspace(options["roots"], options["sources"])
    environment = dict(os.environ)
    workspace.enter()
    libraries.begin_again_if_too_late(environment, "ask", options)
    workspace.install()
    for dag in sides.current().dags_of(workspace, options["path"], options.get("settings")):
        if dag.dag_id == options["dag_id"]:
            return dag
    raise AirflowException(f"{options['path']} does not make the DAG {options['dag_id']!r} any more")


def answer_to(options, question):
    if question["kind"] in ("providers", "test_connection"):
        from leoflow.sdk import named_classes, providers

        # Of no project, so that a class of a project's own is not to be found.
        with named_classes.left_out():
            if question["kind"] == "providers":
                return {"providers": providers.installed()}
            return providers.test_connection(question["connection_id"])
    dag = find(options)
    if question["kind"] == "callback":
        return {"problems": sides.current().call_back(dag, options["spec"])}
    return ask(*sides.current().timetable_of(dag), question)


def main(options: dict[str, Any]) -> None:
    prepare(options.get("limits"), options.get("support"))
    if options.get("socket"):
        leoflow_server.use(options["socket"], options.get("token"), patience=5)
    try:
        answer = answer_to(options, options["question"])
    except BaseException as error:
        answer = {"error": clean(explain(error))}
    sys.stdout.flush()
    sys.stderr.flush()
    with os.fdopen(options["descriptor"], "wb") as pipe:
        pipe.write(json.dumps(clean(answer)).encode())
    os._exit(0)
