"""`leoflow dags test`: the tasks of a DAG one after another, in this process and this terminal."""

import logging
import os
import signal
import sys
import time
from datetime import datetime, timezone

from . import _active, _context, _load, _stores
from ._errors import AirflowFailException, AirflowSkipException, explain
from ._task import outputs, resolve_arguments
from ._values import decode, encode

FAILED = ("failed", "upstream_failed")


class Memory:
    """XComs of this one run. They go the way that stored ones do, so that what cannot be stored fails here too."""

    def __init__(self):
        self.task_id = None
        self.kept = {}

    def push(self, key, value):
        self.kept[self.task_id, key] = encode(key, value)

    def pull(self, dag_id, run_id, task_ids, key):
        return {one: decode(self.kept[one, key]) for one in task_ids if (one, key) in self.kept}


def choose(options):
    """The DAG that was asked for."""
    workspace = _load.Workspace(options["roots"])
    workspace.install()
    found = _load.dags(workspace, options["path"])
    for dag in found:
        if dag.dag_id == options["dag_id"]:
            return dag
    names = ", ".join(dag.dag_id for dag in found) or "none"
    sys.exit(f"error: {options['path']} makes no DAG {options['dag_id']!r}; it makes: {names}")


def say(text):
    sys.stderr.write(f"{text}\n")


def run_once(task, spec, dag, memory, with_debugger):
    """One try. Returns the state, and whether a retry is allowed."""
    context = _context.build(spec, dag, task, memory)
    memory.task_id = task.task_id
    memory.kept = {place: text for place, text in memory.kept.items() if place[0] != task.task_id}
    given = {field: getattr(task, field) for field in task.template_fields}
    try:
        resolve_arguments(task, context["ti"])
        os.environ.update(context["ti"].airflow_environment())
        _active.set_context(context)
        for key, text in outputs(task, task.execute(context)).items():
            memory.kept[task.task_id, key] = text
        return "success", False
    except AirflowSkipException as error:
        say(f"skipped: {error}")
        return "skipped", False
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        say(explain(error))
        if with_debugger:
            import pdb

            pdb.post_mortem(error.__traceback__)
        return "failed", not isinstance(error, AirflowFailException)
    finally:
        _active.set_context(None)
        # A retry gets its arguments as they were written.
        for field, value in given.items():
            setattr(task, field, value)


def run_task(task, states, spec, dag, memory, with_debugger):
    above = [states[task_id] for task_id in task.upstream_task_ids]
    if any(state in FAILED for state in above):
        return "upstream_failed"
    if "skipped" in above:
        return "skipped"
    for number in range(1, task.retries + 2):
        say(f"--- {task.task_id}" + (f", try {number} of {task.retries + 1}" if task.retries else ""))
        state, may_retry = run_once(task, {**spec, "try_number": number, "max_tries": task.retries}, dag, memory, with_debugger)
        if state != "failed" or not may_retry or number > task.retries:
            return state
        # Long enough to see it; nobody waits five minutes at a terminal.
        time.sleep(min(task.retry_delay.total_seconds(), 1))
    return "failed"


def main(options):
    _load.prepare()
    logging.basicConfig(level=logging.INFO, format="[%(levelname)s] %(name)s: %(message)s", stream=sys.stderr)
    # Ctrl-C is for the task, or for its debugger.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    _stores.use(options["socket"], patience=2)
    try:
        dag = choose(options)
    except SystemExit:
        raise
    except BaseException as error:
        say(explain(error))
        sys.exit(1)
    now = datetime.now(timezone.utc).isoformat()
    date = options["logical_date"]
    spec = {
        "dag_id": dag.dag_id, "run_id": f"manual__{now}", "run_type": "manual", "conf": options["conf"], "map_index": -1,
        "logical_date": date, "data_interval_start": date, "data_interval_end": date, "run_after": now,
        "run_start_date": now,
    }
    memory, states = Memory(), {}
    try:
        for task in dag.ordered():
            states[task.task_id] = run_task(task, states, spec, dag, memory, options["pdb"])
            say(f"{task.task_id}  {states[task.task_id]}")
    except KeyboardInterrupt:
        say("interrupted")
        sys.exit(130)
    leaves = [task for task in dag.tasks if not task.downstream_task_ids]
    failed = any(states[task.task_id] in FAILED for task in leaves)
    print(f"{dag.dag_id}  {'failed' if failed else 'success'}")
    sys.exit(1 if failed else 0)
