"""What only the user's own code can answer about a DAG: when it is next due by a timetable of its own,
and what its callbacks do. The answer is JSON, on a descriptor."""

from __future__ import annotations

import json
import os
import sys
from datetime import datetime

from leoflow.authoring.timetables import DataInterval, TimeRestriction, stamp
from leoflow.common import current, leoflow_server
from leoflow.common.dates import of
from leoflow.common.exceptions import AirflowException
from leoflow.common.reports import clean, explain
from leoflow.entry.workspace import Workspace, dags_of, prepare
from leoflow.running.context import build_context
from leoflow.running.task_api import TaskApi
from leoflow.running.task_instance import DagRun
from leoflow.running.xcoms import TaskXComs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def interval_of(given):
    """From JSON."""
    if given is None:
        return None
    start, end = (of(datetime.fromisoformat(one)) for one in given)
    return DataInterval(start, end)


def ask(timetable, question):
    """What a timetable of the user's own answers, as JSON."""
    if question["kind"] == "manual":
        run_after = of(datetime.fromisoformat(question["run_after"]))
        found = timetable.infer_manual_data_interval(run_after=run_after)
        return {"interval": [stamp(found.start), stamp(found.end)]}
    last = interval_of(question["last"])
    earliest, latest = (None if question[name] is None else of(datetime.fromisoformat(question[name]))
                        for name in ("earliest", "latest"))
    restriction = TimeRestriction(earliest, latest, question["catchup"])
    infos = []
    for _ in range(question.get("count", 1)):
        info = timetable.next_dagrun_info(last_automated_data_interval=last, restriction=restriction)
        if info is None:
            break
        last = info.data_interval
        interval = last and [stamp(last.start), stamp(last.end)]
        run_id = timetable.generate_run_id(run_type="scheduled", run_after=info.run_after, data_interval=last)
        infos.append({"run_after": stamp(info.run_after), "interval": interval, "run_id": run_id})
    return {"infos": infos}


def find(options):
    workspace = Workspace(options["roots"], options["sources"])
    workspace.install()
    workspace.enter()
    for dag in dags_of(workspace, options["path"], options.get("settings")):
        if dag.dag_id == options["dag_id"]:
            return dag
    raise AirflowException(f"{options['path']} does not make the DAG {options['dag_id']!r} any more")


def call_back(dag, options):
    """The DAG's own callbacks, with the context of the task that decided."""
    spec = options["spec"]
    context = {"dag": dag, "run_id": spec["run_id"], "reason": spec["reason"]}
    if spec.get("task_id") in dag.task_dict:
        task = dag.get_task(spec["task_id"])
        context = build_context(spec, dag, task, TaskXComs(), TaskApi())
        context["reason"] = spec["reason"]
        context["dag_run"].state = spec["state"]
    elif spec.get("conf") is not None:
        context["dag_run"] = DagRun(spec)
        context["dag_run"].state = spec["state"]
    functions = dag.on_success_callback if spec["state"] == "success" else dag.on_failure_callback
    problems = []
    current.set_context(context)
    for function in functions:
        try:
            function(context)
        except Exception as error:
            problems.append(explain(error))
    return {"problems": problems}


def main(options: dict[str, Any]) -> None:
    prepare(options.get("limits"), options.get("support"))
    if options.get("socket"):
        leoflow_server.use(options["socket"], options.get("token"), patience=5)
    try:
        dag = find(options)
        if options["question"]["kind"] == "callback":
            answer = call_back(dag, options)
        else:
            answer = ask(dag.timetable, options["question"])
    except BaseException as error:
        answer = {"error": clean(explain(error))}
    sys.stdout.flush()
    sys.stderr.flush()
    with os.fdopen(options["descriptor"], "wb") as pipe:
        pipe.write(json.dumps(clean(answer)).encode())
    os._exit(0)
