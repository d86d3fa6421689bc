"""The parsing child: runs one DAG file and writes what it found to a descriptor, as JSON."""

import json
import os
import sys

from . import _load, _stores
from ._errors import clean, explain


def structure(dag):
    return {
        "dag_id": dag.dag_id,
        "description": dag.description,
        "doc_md": dag.doc_md,
        "schedule": dag.schedule_text,
        "start_date": dag.start_date and dag.start_date.isoformat(),
        "end_date": dag.end_date and dag.end_date.isoformat(),
        "catchup": dag.catchup,
        "tags": dag.tags,
        "params": dag.params,
        "owners": sorted({task.owner for task in dag.tasks}),
        "max_active_runs": dag.max_active_runs,
        "max_active_tasks": dag.max_active_tasks,
        "is_paused_upon_creation": dag.is_paused_upon_creation,
        "tasks": [
            {
                "task_id": task.task_id,
                "operator": getattr(task, "airflow_name", type(task).__name__),
                "operator_name": task.operator_name or type(task).__name__,
                "upstream": sorted(task.upstream_task_ids),
                "retries": task.retries,
                "retry_delay": task.retry_delay.total_seconds(),
                "execution_timeout": task.execution_timeout and task.execution_timeout.total_seconds(),
                "owner": task.owner,
                "doc_md": task.doc_md,
            }
            for task in dag.ordered()
        ],
    }


def note_reads(workspace, read):
    """Files of the workspace that are opened for reading, and whether they were there."""

    def hook(event, arguments):
        if event != "open" or not isinstance(arguments[0], (str, bytes)) or len(read) >= 1000:
            return
        _, mode, flags = arguments
        reads = "r" in mode if mode else (flags or 0) & (os.O_ACCMODE | os.O_DIRECTORY) == os.O_RDONLY
        path = os.path.abspath(os.fsdecode(arguments[0]))
        # What is half a character of no text cannot be said.
        if reads and workspace.owns(path) and "site-packages" not in path and clean(path) == path:
            read.setdefault(path, os.path.isfile(path))

    sys.addaudithook(hook)


def parse(path, roots):
    workspace = _load.Workspace(roots)
    workspace.install()
    read = {}
    note_reads(workspace, read)
    result = {"dags": [], "error": None}
    try:
        result["dags"] = [structure(dag) for dag in _load.dags(workspace, path)]
        # What cannot be kept is the file's fault too.
        json.dumps(result, allow_nan=False)
        if clean(result["dags"]) != result["dags"]:
            raise ValueError("a text of the DAG holds the character NUL, or is no Unicode")
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        result = {"dags": [], "error": clean(explain(error))}
    result["sources"] = {name: text for name, text in workspace.ran.items() if workspace.owns(name)}
    # What else decided about the DAGs: they are parsed again when it changes.
    read = {name: there for name, there in read.items() if name not in result["sources"]}
    result["reads"] = sorted(read)
    result["absent"] = sorted(name for name, there in read.items() if not there)
    result["asks"] = _stores.was_asked()
    return result


def main(options):
    _load.prepare(options.get("limits"))
    if options.get("socket"):
        # A file's top level has half a minute; it must not spend it on a server that is away.
        _stores.use(options["socket"], patience=5)
    own = os.getpid()
    result = parse(options["path"], options["roots"])
    if os.getpid() != own:
        # A fork of the file's own doing: only one of the two may answer.
        os._exit(0)
    text = json.dumps(result, ensure_ascii=True).encode()
    sys.stdout.flush()
    sys.stderr.flush()
    with os.fdopen(options["descriptor"], "wb") as pipe:
        pipe.write(text)
    # What the file left running, threads for example, must not keep us.
    os._exit(0)
