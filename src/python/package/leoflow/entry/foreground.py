"""`leoflow dags test` and `tasks test`: tasks one after another, in this terminal. What comes next says the
planner of the scheduler itself, over a socket; nothing is stored."""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import time
from datetime import datetime, timezone

from leoflow.common import leoflow_server, task_log, topology
from leoflow.common.client import connect
from leoflow.common.reports import explain, missing_date
from leoflow.entry import sides
from leoflow.entry.workspace import Workspace, prepare
from leoflow.running.offline import Memory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

FINISHED = ("success", "failed", "skipped", "upstream_failed", "removed")


class Planner:
    """The scheduler's, in the process that started this one."""

    def __init__(self, path):
        self.path = path
        self.own = self.connect()

    def connect(self):
        return connect(self.path).makefile("rw", encoding="utf-8")

    def ask(self, question):
        return self.ask_over(self.own, question)

    def ask_over(self, stream, question):
        stream.write(json.dumps(question) + "\n")
        stream.flush()
        answer = json.loads(stream.readline() or '{"error": "the planner has left"}')
        if "error" in answer:
            sys.exit(f"error: {answer['error']}")
        return answer

    def length(self, words, lengths):
        """How many elements `words` mean, by how many each task has returned; None where one has not. Tasks ask for
        themselves, several at once and cut off at any moment: each question has a connection of its own."""
        with self.connect() as stream:
            return self.ask_over(stream, {"kind": "length", "length": words, "lengths": lengths})["length"]


def choose(options):
    """The DAG that was asked for."""
    workspace = Workspace(options["roots"])
    workspace.enter()
    # Before Airflow is imported: a setting may name a class of the project.
    workspace.install()
    sides.current().begin_log(task_log.to_terminal)
    found = sides.current().dags_of(workspace, options["path"], options.get("settings"))
    for dag in found:
        if dag.dag_id == options["dag_id"]:
            return dag
    names = ", ".join(dag.dag_id for dag in found) or "none"
    sys.exit(f"error: {options['path']} makes no DAG {options['dag_id']!r}; it makes: {names}")


def say(text):
    sys.stderr.write(f"{text}\n")


def name(one):
    return one["task_id"] if one["map_index"] < 0 else f"{one['task_id']}[{one['map_index']}]"


def run_once(task, spec, dag, memory):
    """One try, here. Returns its result."""
    try:
        attempt = sides.current().try_in_foreground(dag, task, spec, memory)
    except Exception as error:
        if type(error).__name__ != "ParamValidationError":
            raise
        say(f"error: the params of this run are not valid: {error}\n  --conf gives them, as JSON: --conf '{{\"name\": \"value\"}}'")
        return {"state": "failed", "retry": False}
    result = attempt.run()
    if result["state"] == "deferred" and getattr(getattr(attempt, "supervisor", None), "question", None):
        # Before Airflow 3.3 a trigger looks for the answer.
        result["state"] = "awaiting_input"
    if result["state"] == "deferred":
        say(f"deferred: {result['deferral']['classpath']}")
        going_on = sides.current().wait_for_trigger(result["deferral"], spec, task.task_id)
        if "ended" in going_on:
            return {"state": going_on["ended"], "retry": True}
        return run_once(task, {**spec, **going_on}, dag, memory)
    if result["state"] == "awaiting_input":
        # Of a person, at the terminal.
        try:
            going_on = sides.current().ask_here(attempt, result["deferral"])
        except Exception as error:
            say(f"error: {error}")
            return {"state": "failed", "retry": False}
        return run_once(task, {**spec, **going_on}, dag, memory)
    for key, text in result.pop("xcoms", {}).items():
        memory.kept[(*memory.own, key)] = text
    attempt.tell()
    if result["state"] == "failed" and spec["pdb"]:
        import pdb

        pdb.post_mortem(attempt.context["exception"].__traceback__)
    return result


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
            result = run_once(task, spec, dag, memory)
            own = [[*place, text] for place, text in memory.kept.items() if place[:2] == memory.own]
            with os.fdopen(writer, "w") as pipe:
                pipe.write(json.dumps({**result, "own": own}, default=str) + "\n")
        except KeyboardInterrupt:
            code = 130
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    os.close(writer)
    answer, status = wait_for(pid, reader)
    os.close(reader)
    code = os.waitstatus_to_exitcode(status)
    if code == 130:
        raise KeyboardInterrupt
    if not answer:
        say(f"the process of {task.task_id} ended before it was done: status {code}")
        return {"state": "failed", "retry": True}
    told = json.loads(answer)
    for *place, text in told.pop("own"):
        memory.kept[tuple(place)] = text
    return told


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


class Run:
    def __init__(self, dag, spec, planner):
        self.dag = dag
        self.spec = spec
        self.planner = planner
        self.memory = Memory(planner)
        self.instances = [
            {"task_id": task.task_id, "map_index": -1, "state": None, "try_number": 0, "max_tries": task.retries, "ended": None}
            for task in topology.ordered(dag.task_dict)
        ]

    def go(self):
        """Until it is over; returns its state."""
        while True:
            answer = self.planner.ask({
                "kind": "next", "instances": self.instances, "lengths": self.memory.lengths(), "decisions": self.memory.decisions(),
                "logical_date": self.spec["logical_date"],
            })
            self.apply(answer)
            if answer["run"] is not None:
                return answer["run"]
            for one in self.instances:
                if one["state"] == "scheduled":
                    self.run(one)
                    break
            else:
                # A retry is due when the planner is asked the next time.
                if not answer["transitions"] and not self.look_again():
                    return "failed"

    def apply(self, answer):
        for index in answer["expanded"]:
            self.instances[index]["map_index"] = 0
        for task_id, map_index in answer["added"]:
            tries = self.dag.get_task(task_id).retries
            self.instances.append({"task_id": task_id, "map_index": map_index, "state": None, "try_number": 0,
                                   "max_tries": tries, "ended": None})
        for index, state, number, may_retry in answer["transitions"]:
            one = self.instances[index]
            if one["state"] != state:
                if state in FINISHED:
                    say(f"{name(one)}  {state}")
                if state == "up_for_retry":
                    # Long enough to see it; nobody waits five minutes at a terminal.
                    time.sleep(min(self.dag.get_task(one["task_id"]).retry_delay.total_seconds(), 1))
            one.update(state=state, try_number=number, may_retry=may_retry, ended=None)

    def look_again(self):
        """Waits for the sensor that is next, if any waits."""
        waiting = [one for one in self.instances if one["state"] == "up_for_reschedule"]
        if not waiting:
            return False
        first = min(waiting, key=lambda one: one["due"])
        time.sleep(max((datetime.fromisoformat(first["due"]) - datetime.now(timezone.utc)).total_seconds(), 0))
        first["state"] = "scheduled"
        self.run(first)
        return True

    def run(self, one):
        task = self.dag.get_task(one["task_id"])
        say(f"--- {name(one)}" + (f", try {one['try_number']} of {one['max_tries'] + 1}" if one["max_tries"] else ""))
        again = bool(one.get("first_start"))
        self.memory.begin((one["task_id"], one["map_index"]), again)
        one.setdefault("first_start", datetime.now(timezone.utc).isoformat())
        spec = {**self.spec, "map_index": one["map_index"], "try_number": one["try_number"],
                "max_tries": one["max_tries"], "may_retry": one["may_retry"], "first_start_date": one["first_start"] if again else None}
        # A debugger needs the terminal's own process.
        result = (run_once if spec["pdb"] else run_apart)(task, spec, self.dag, self.memory)
        if result["state"] == "up_for_reschedule":
            one["due"] = result["due"]
        else:
            one.pop("first_start", None)
        if result["state"] == "skipped":
            say(f"skipped: {result.get('reason', '')}")
        one.update(state="running", ended={"state": result["state"], "retry": result.get("retry", True),
                                           "skips": result.get("skipped_tasks", [])})


def main(options: dict[str, Any]) -> None:
    prepare(support=options.get("support"))
    # Ctrl-C is for the task, or for its debugger; a reader that has left ends us without a word.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN if options["pdb"] else signal.SIG_DFL)
    leoflow_server.use(options["socket"], patience=2)
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
        "run_start_date": now, "pdb": options["pdb"], "try_number": 1, "max_tries": 0,
        "max_map_length": options["max_map_length"],
    }
    try:
        planner = Planner(options["planner"])
        if options.get("task_id"):
            sys.exit(test_task(dag, spec, options, planner))
        state = Run(dag, spec, planner).go()
    except KeyboardInterrupt:
        say("interrupted")
        sys.exit(130)
    print(f"{dag.dag_id}  {state}")
    sys.exit(1 if state == "failed" else 0)


def test_task(dag, spec, options, planner):
    """One task alone, whatever it waits for."""
    try:
        task = dag.get_task(options["task_id"])
    except Exception as error:
        sys.exit(f"error: {error}; its tasks are: {', '.join(sorted(dag.task_dict))}")
    memory = Memory(planner)
    index = options["map_index"]
    if task.is_mapped and index < 0:
        sys.exit(f"error: {task.task_id} is mapped; --map-index 0 is its first instance")
    memory.begin((task.task_id, index), False)
    spec = {**spec, "map_index": index}
    if options.get("render"):
        return render(dag, task, spec, memory)
    result = (run_once if spec["pdb"] else run_apart)(task, spec, dag, memory)
    print(f"{task.task_id}  {result['state']}")
    return 1 if result["state"] == "failed" else 0


def render(dag, task, spec, memory):
    """Its template fields as they would be, one after another."""
    try:
        attempt = sides.current().try_in_foreground(dag, task, spec, memory)
        attempt.prepare()
    except Exception as error:
        if type(error).__name__ == "ParamValidationError":
            say(f"error: the params of this run are not valid: {error}")
            return 1
        say(explain(error))
        hint = missing_date(error) if spec["logical_date"] is None else None
        if hint:
            say(hint)
        return 1
    line = f"# {'-' * 58}"
    for field in attempt.task.template_fields:
        print(f"{line}\n# property: {field}\n{line}\n{getattr(attempt.task, field)}")
    return 0
