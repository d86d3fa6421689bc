"""What only the user's own code can answer about a DAG: when it is next due by a timetable of its own,
and what its callbacks do. The answer is JSON, on a descriptor."""

import json
import os
import sys

from . import _active, _context, _load, _stores, _timetables
from ._errors import AirflowException, clean, explain
from ._server import Server


def find(options):
    workspace = _load.Workspace(options["roots"], options["sources"])
    workspace.install()
    workspace.enter()
    for dag in _load.dags(workspace, options["path"], options.get("settings")):
        if dag.dag_id == options["dag_id"]:
            return dag
    raise AirflowException(f"{options['path']} does not make the DAG {options['dag_id']!r} any more")


def call_back(dag, options):
    """The DAG's own callbacks, with the context of the task that decided."""
    spec = options["spec"]
    context = {"dag": dag, "run_id": spec["run_id"], "reason": spec["reason"]}
    if spec.get("task_id") in dag.task_dict:
        task = dag.get_task(spec["task_id"])
        context = _context.build(spec, dag, task, _stores.TaskXComs(), Server())
        context["reason"] = spec["reason"]
        context["dag_run"].state = spec["state"]
    elif spec.get("conf") is not None:
        context["dag_run"] = _context.DagRun(spec)
        context["dag_run"].state = spec["state"]
    functions = dag.on_success_callback if spec["state"] == "success" else dag.on_failure_callback
    problems = []
    _active.set_context(context)
    for function in functions:
        try:
            function(context)
        except Exception as error:
            problems.append(explain(error))
    return {"problems": problems}


def main(options):
    _load.prepare(options.get("limits"), options.get("support"))
    if options.get("socket"):
        _stores.use(options["socket"], options.get("token"), patience=5)
    try:
        dag = find(options)
        if options["question"]["kind"] == "callback":
            answer = call_back(dag, options)
        else:
            answer = _timetables.ask(dag.timetable, options["question"])
    except BaseException as error:
        answer = {"error": clean(explain(error))}
    sys.stdout.flush()
    sys.stderr.flush()
    with os.fdopen(options["descriptor"], "wb") as pipe:
        pipe.write(json.dumps(clean(answer)).encode())
    os._exit(0)
