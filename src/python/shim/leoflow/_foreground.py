"""`leoflow dags test`: the tasks of a DAG one after another, in this process and this terminal."""

import json
import logging
import os
import select
import signal
import sys
import time
from datetime import datetime, timezone

from . import _context, _load, _stores
from ._errors import AirflowFailException, AirflowSkipException, explain
from ._task import execute
from ._values import decode, encode

FAILED = ("failed", "upstream_failed")


class Memory:
    """XComs of this one run. They go the way that stored ones do, so that what cannot be stored fails here too."""

    def __init__(self):
        self.task_id = None
        self.kept = {}

    def forget(self, task_id):
        """Another try begins without what an earlier one left."""
        self.kept = {place: text for place, text in self.kept.items() if place[0] != task_id}

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


def run_once(task, spec, dag, memory):
    """One try. Returns the state, and whether a retry is allowed."""
    context = _context.build(spec, dag, task, memory)
    memory.task_id = task.task_id
    memory.forget(task.task_id)
    try:
        for key, text in execute(task, context).items():
            memory.kept[task.task_id, key] = text
        return "success", False
    except AirflowSkipException as error:
        say(f"skipped: {error}")
        return "skipped", False
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        say(explain(error))
        if spec["pdb"]:
            import pdb

            pdb.post_mortem(error.__traceback__)
        return "failed", not isinstance(error, AirflowFailException)


def run_apart(task, spec, dag, memory):
    """One try in a process of its own, so that tasks leave one another nothing but XComs."""
    reader, writer = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        # As everywhere else: a reader that has left is an error of that write.
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
        code = 0
        try:
            state, may_retry = run_once(task, spec, dag, memory)
            own = {key: text for (task_id, key), text in memory.kept.items() if task_id == task.task_id}
            with os.fdopen(writer, "w") as pipe:
                pipe.write(json.dumps({"state": state, "may_retry": may_retry, "xcoms": own}) + "\n")
        except KeyboardInterrupt:
            code = 130
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    os.close(writer)
    answer, status = wait_for(pid, reader)
    os.close(reader)
    if os.waitstatus_to_exitcode(status) == 130:
        raise KeyboardInterrupt
    if not answer:
        say(f"the process of {task.task_id} ended before it was done: status {os.waitstatus_to_exitcode(status)}")
        return "failed", True
    told = json.loads(answer)
    memory.forget(task.task_id)
    memory.kept.update({(task.task_id, key): text for key, text in told["xcoms"].items()})
    return told["state"], told["may_retry"]


def wait_for(pid, reader):
    """What the process answers, and its status. Whoever else has the pipe is not waited for."""
    answer, status = b"", None
    while status is None:
        try:
            ready, _, _ = select.select([reader], [], [], 0 if answer.endswith(b"\n") else 0.05)
            if ready and not answer.endswith(b"\n"):
                answer += os.read(reader, 1 << 20)
            done, found = os.waitpid(pid, os.WNOHANG if not answer.endswith(b"\n") else 0)
            status = found if done else None
        except KeyboardInterrupt:
            # It has heard it too, and cleans up.
            continue
    while not answer.endswith(b"\n") and select.select([reader], [], [], 0)[0]:
        chunk = os.read(reader, 1 << 20)
        if not chunk:
            break
        answer += chunk
    return answer, status


def run_task(task, states, spec, dag, memory):
    above = [states[task_id] for task_id in task.upstream_task_ids]
    if any(state in FAILED for state in above):
        return "upstream_failed"
    if "skipped" in above:
        return "skipped"
    for number in range(1, task.retries + 2):
        say(f"--- {task.task_id}" + (f", try {number} of {task.retries + 1}" if task.retries else ""))
        # A debugger needs the terminal's own process.
        run = run_once if spec["pdb"] else run_apart
        state, may_retry = run(task, {**spec, "try_number": number, "max_tries": task.retries}, dag, memory)
        if state != "failed" or not may_retry or number > task.retries:
            return state
        # Long enough to see it; nobody waits five minutes at a terminal.
        time.sleep(min(task.retry_delay.total_seconds(), 1))
    return "failed"


def main(options):
    _load.prepare()
    logging.basicConfig(level=logging.INFO, format="[%(levelname)s] %(name)s: %(message)s", stream=sys.stderr)
    # Ctrl-C is for the task, or for its debugger; a reader that has left ends us without a word.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN if options["pdb"] else signal.SIG_DFL)
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
        "run_start_date": now, "pdb": options["pdb"],
    }
    memory, states = Memory(), {}
    try:
        for task in dag.ordered():
            states[task.task_id] = run_task(task, states, spec, dag, memory)
            say(f"{task.task_id}  {states[task.task_id]}")
    except KeyboardInterrupt:
        say("interrupted")
        sys.exit(130)
    leaves = [task for task in dag.tasks if not task.downstream_task_ids]
    failed = any(states[task.task_id] in FAILED for task in leaves)
    print(f"{dag.dag_id}  {'failed' if failed else 'success'}")
    sys.exit(1 if failed else 0)
