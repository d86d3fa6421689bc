"""`leoflow dags test` and `leoflow tasks test`: run tasks one after another in the terminal. The scheduler's planner,
in the parent process, decides over a socket which task is next. Nothing is stored."""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import time
from datetime import datetime, timezone

from leoflow.common import leoflow_server, masking, task_log, topology
from leoflow.common.client import connect
from leoflow.common.hints.commands import command
from leoflow.common.reports import clean, explain, missing_date
from leoflow.common.task_log import masked
from leoflow.entry import backends
from leoflow.entry.workspace import Workspace, prepare
from leoflow.running import fork_signals, loading
from leoflow.running.keeper_pipe import mask_environment
from leoflow.running.offline import InMemoryXComs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

FINISHED = ("success", "failed", "skipped", "upstream_failed", "removed")


class MaskedStream:
    """An output stream that masks the secrets that were read, like the log of a task."""

    def __init__(self, stream):
        self._stream = stream

    def write(self, text):
        self._stream.write(masking.hide(text))
        return len(text)

    def writelines(self, lines):
        for line in lines:
            self.write(line)

    def __getattr__(self, name):
        return getattr(self._stream, name)


class Planner:
    """Client of the scheduler's planner, which runs in the parent process."""

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
        answer = json.loads(stream.readline() or '{"error": "the planner exited"}')
        if "error" in answer:
            sys.exit(f"error: {answer['error']}")
        return answer

    def length(self, expression, lengths):
        """Evaluates a length expression with the numbers of results per task (`lengths`); None if a number is missing.
        Opens a connection per call, because tasks call this in their own processes, which may be killed at any time."""
        with self.connect() as stream:
            return self.ask_over(stream, {"kind": "length", "length": expression, "lengths": lengths})["length"]


def load_dag(options):
    """Parses the file and returns the requested DAG."""
    loading.begin()
    workspace = Workspace(options["roots"])
    workspace.enter()
    # Precedes the import of Airflow, whose settings may name a class of the project.
    workspace.install()
    backends.current().begin_log(task_log.to_terminal)
    dags = backends.current().dags_of(workspace, options["path"], options.get("settings"))
    loading.finish()
    for dag in dags:
        if dag.dag_id == options["dag_id"]:
            return dag
    names = ", ".join(dag.dag_id for dag in dags) or "none"
    sys.exit(f"error: {options['path']} defines no DAG {options['dag_id']!r}; it defines: {names}")


def print_status(text: str) -> None:
    # Keeps the order of a redirected output.
    sys.stdout.flush()
    sys.stderr.write(f"{text}\n")


def instance_name(instance: dict[str, Any]) -> str:
    return instance["task_id"] if instance["map_index"] < 0 else f"{instance['task_id']}[{instance['map_index']}]"


def run_once(task, spec, dag, memory):
    """Runs one try in this process; returns its result."""
    try:
        attempt = backends.current().try_in_foreground(dag, task, spec, memory)
    except Exception as error:
        if type(error).__name__ != "ParamValidationError":
            raise
        print_status(f"error: the params of this run are not valid: {error}\n  pass them as JSON: --conf '{{\"name\": \"value\"}}'")
        return {"state": "failed", "retry": False}
    result = attempt.run()
    error = attempt.context.get("exception") if spec.get("is_outside") else None
    if isinstance(error, KeyboardInterrupt) or type(error).__name__ == "BdbQuit":
        # The user has ended the process or its debugger; the task has not failed.
        raise error
    if result["state"] == "deferred" and getattr(getattr(attempt, "supervisor", None), "question", None):
        # Before Airflow 3.3, a task with a question defers to a trigger that polls for the answer. Here, the terminal
        # asks the user.
        result["state"] = "awaiting_input"
    if result["state"] == "deferred":
        print_status(f"deferred: {result['deferral']['classpath']}")
        continuation = backends.current().wait_for_trigger(result["deferral"], spec, task.task_id)
        if "ended" in continuation:
            return {"state": continuation["ended"], "retry": True}
        return run_once(task, {**spec, **continuation}, dag, memory)
    if result["state"] == "awaiting_input":
        try:
            continuation = backends.current().ask_at_terminal(attempt, result["deferral"])
        except Exception as error:
            print_status(f"error: {error}")
            return {"state": "failed", "retry": False}
        return run_once(task, {**spec, **continuation}, dag, memory)
    for key, text in result.pop("xcoms", {}).items():
        memory.xcoms[(*memory.own, key)] = text
    attempt.run_callbacks()
    if result["state"] == "failed" and spec["pdb"]:
        import pdb

        pdb.post_mortem(attempt.context["exception"].__traceback__)
    return result


def run_apart(task, spec, dag, memory):
    """Runs one try in a process of its own, so that tasks share only XComs; returns its result."""
    reader, writer = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        # As in other task processes, writing to a closed pipe raises an error instead of a signal.
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
        code = 0
        try:
            result = run_once(task, spec, dag, memory)
            own_xcoms = [[*key, text] for key, text in memory.xcoms.items() if key[:2] == memory.own]
            with os.fdopen(writer, "w") as pipe:
                pipe.write(json.dumps({**result, "own": own_xcoms}, default=str) + "\n")
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
        print_status(f"the process of {task.task_id} exited with status {code} before it reported a result")
        return {"state": "failed", "retry": True}
    report = json.loads(answer)
    for *key, text in report.pop("own"):
        memory.xcoms[tuple(key)] = text
    return report


def wait_for(pid, reader):
    """Waits for the process; returns its answer and its wait status. Does not wait for other processes that keep the
    pipe open."""
    answer, status = b"", None
    while status is None:
        try:
            ready, _, _ = select.select([reader], [], [], 0 if answer.endswith(b"\n") else 0.05)
            if ready and not answer.endswith(b"\n"):
                answer += os.read(reader, 1 << 20)
            ended_pid, exit_status = os.waitpid(pid, os.WNOHANG if not answer.endswith(b"\n") else 0)
            status = exit_status if ended_pid else None
        except KeyboardInterrupt:
            # The process of the task received the signal, too, and is cleaning up.
            continue
    while not answer.endswith(b"\n") and select.select([reader], [], [], 0)[0]:
        chunk = os.read(reader, 1 << 20)
        if not chunk:
            break
        answer += chunk
    return answer, status


class Run:
    """A foreground run. `instances` are its task instances, with the fields that the planner reads."""

    def __init__(self, dag, spec, planner):
        self.dag = dag
        self.spec = spec
        self.planner = planner
        self.memory = InMemoryXComs(planner)
        self.last_ended = {}
        self.instances = [
            {"task_id": task.task_id, "map_index": -1, "state": None, "try_number": 0, "max_tries": task.retries, "ended": None}
            for task in topology.ordered(dag.task_dict)
        ]

    def run_to_end(self):
        """Runs tasks until the run has ended; returns its state."""
        while True:
            answer = self.planner.ask({
                "kind": "next", "instances": self.instances, "lengths": self.memory.lengths(), "decisions": self.memory.decisions(),
                "logical_date": self.spec["logical_date"],
            })
            self.apply(answer)
            if answer["run"] is not None:
                return answer["run"]
            for instance in self.instances:
                if instance["state"] == "scheduled":
                    self.run(instance)
                    break
            else:
                # After transitions, asks the planner again; a retry is due by then. Otherwise only a waiting sensor can
                # continue the run.
                if not answer["transitions"] and not self.run_next_sensor():
                    return "failed"

    def call_back(self, state):
        """Calls the DAG's callbacks for the state of the run, with the context of the task that ended last in it."""
        spec = {**self.spec, **self.last_ended.get(state, {"task_id": None}), "state": state,
                "reason": "success" if state == "success" else "task_failure"}
        try:
            for problem in backends.current().call_back(self.dag, spec, self.memory):
                print_status(f"error: the callback {problem['callback']} failed:\n{problem['report']}")
        except (Exception, SystemExit) as error:
            print_status(f"error: the callbacks of the DAG failed:\n{explain(error)}")

    def apply(self, answer):
        """Applies the planner's answer to the instances. Its indexes are positions in `instances`."""
        for index in answer["expanded"]:
            self.instances[index]["map_index"] = 0
        for task_id, map_index in answer["added"]:
            tries = self.dag.get_task(task_id).retries
            self.instances.append({"task_id": task_id, "map_index": map_index, "state": None, "try_number": 0,
                                   "max_tries": tries, "ended": None})
        for index, state, number, may_retry in answer["transitions"]:
            instance = self.instances[index]
            if instance["state"] != state:
                if state in FINISHED:
                    self.last_ended[state] = instance
                    print_status(f"{instance_name(instance)}  {state}")
                if state == "up_for_retry":
                    # Waits at most a second, because a user waits at the terminal.
                    time.sleep(min(self.dag.get_task(instance["task_id"]).retry_delay.total_seconds(), 1))
            instance.update(state=state, try_number=number, may_retry=may_retry, ended=None)

    def run_next_sensor(self):
        """Waits until the next rescheduled sensor is due and runs it. Returns False if no sensor waits."""
        waiting = [instance for instance in self.instances if instance["state"] == "up_for_reschedule"]
        if not waiting:
            return False
        sensor = min(waiting, key=lambda instance: instance["due"])
        time.sleep(max((datetime.fromisoformat(sensor["due"]) - datetime.now(timezone.utc)).total_seconds(), 0))
        sensor["state"] = "scheduled"
        self.run(sensor)
        return True

    def run(self, instance):
        """Runs a try of an instance, or continues the try of a rescheduled sensor."""
        task = self.dag.get_task(instance["task_id"])
        try_number = f", try {instance['try_number']} of {instance['max_tries'] + 1}" if instance["max_tries"] else ""
        print_status(f"--- {instance_name(instance)}{try_number}")
        continues = bool(instance.get("first_start"))
        self.memory.begin((instance["task_id"], instance["map_index"]), continues)
        instance.setdefault("first_start", datetime.now(timezone.utc).isoformat())
        spec = {**self.spec, "map_index": instance["map_index"], "try_number": instance["try_number"],
                "max_tries": instance["max_tries"], "may_retry": instance["may_retry"],
                "first_start_date": instance["first_start"] if continues else None}
        # A debugger works only in the process that reads the terminal, or to which an editor is attached.
        run_try = run_once if spec["pdb"] or spec.get("is_outside") else run_apart
        result = run_try(task, spec, self.dag, self.memory)
        self.memory.mapped_lengths[task.task_id] = result.get("mapped_length")
        if result["state"] == "up_for_reschedule":
            instance["due"] = result["due"]
        else:
            instance.pop("first_start", None)
        if result["state"] == "skipped":
            print_status(f"skipped: {result.get('reason', '')}")
        instance.update(state="running", ended={"state": result["state"], "retry": result.get("retry", True),
                                           "skips": result.get("skipped_tasks", [])})


def main(options: dict[str, Any]) -> None:
    prepare(support=options.get("support"))
    # Ctrl-C interrupts the task or its debugger. Without a debugger, a closed output ends this process silently.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN if options["pdb"] else signal.SIG_DFL)
    fork_signals.reset_handlers()
    leoflow_server.configure(options["socket"], retry_seconds=2)
    if not options["pdb"]:
        # The debugger edits lines of the terminal itself.
        sys.stdout, sys.stderr = MaskedStream(sys.stdout), MaskedStream(sys.stderr)
    try:
        dag = load_dag(options)
        mask_environment()
    except SystemExit:
        raise
    except BaseException as error:
        print_status(explain(error))
        sys.exit(1)
    spec = new_run(dag.dag_id, options["logical_date"], options["conf"], options["max_map_length"], options["pdb"])
    try:
        planner = Planner(options["planner"])
        if options.get("task_id"):
            sys.exit(test_task(dag, spec, options, planner))
        run = Run(dag, spec, planner)
        state = run.run_to_end()
        run.call_back(state)
    except KeyboardInterrupt:
        print_status("interrupted")
        sys.exit(130)
    report(options, f"{dag.dag_id}  {state}", {
        "dag_id": dag.dag_id, "run_id": spec["run_id"], "logical_date": spec["logical_date"], "state": state,
        "task_instances": [{name: instance[name] for name in ("task_id", "map_index", "state", "try_number")}
                           for instance in run.instances],
    })
    sys.exit(1 if state == "failed" else 0)


def new_run(dag_id: str, date: str | None, conf: dict[str, Any], max_map_length: int, pdb: bool = False) -> dict[str, Any]:
    """Returns the fields of a new run."""
    now = datetime.now(timezone.utc).isoformat()
    return {
        "dag_id": dag_id, "run_id": f"manual__{now}", "run_type": "manual", "conf": conf, "map_index": -1,
        "logical_date": date, "data_interval_start": date, "data_interval_end": date, "run_after": now,
        "run_start_date": now, "pdb": pdb, "try_number": 1, "max_tries": 0, "max_map_length": max_map_length,
    }


def report(options, text, result):
    """Prints the result, or writes it to the file that the parent process reads."""
    if "result" not in options:
        print(text)
        return
    with open(options["result"], "w", encoding="utf-8") as file:
        json.dump(clean(result), file, default=str)


def test_task(dag, spec, options, planner):
    """Runs one task, ignoring its upstream tasks."""
    try:
        task = dag.get_task(options["task_id"])
    except Exception as error:
        sys.exit(f"error: {error}; its tasks are: {', '.join(sorted(dag.task_dict))}")
    memory = InMemoryXComs(planner)
    index = options["map_index"]
    if task.is_mapped and index < 0:
        sys.exit(f"error: {task.task_id} is mapped: select an instance, for example its first with --map-index 0")
    memory.begin((task.task_id, index), False)
    spec = {**spec, "map_index": index}
    if options.get("render"):
        return render(dag, task, spec, memory, options)
    result = (run_once if spec["pdb"] else run_apart)(task, spec, dag, memory)
    if result["state"] == "failed" and task.upstream_task_ids:
        before = ", ".join(sorted(task.upstream_task_ids))
        print_status(f"A test of one task has no results of the tasks before it ({before}); with them: "
                     f"`{command('dags test')} {dag.dag_id}`")
    xcom = memory.xcoms.get((*memory.own, "return_value"))
    report(options, f"{task.task_id}  {result['state']}", {
        "dag_id": dag.dag_id, "task_id": task.task_id, "map_index": index, "state": result["state"], "reason": result.get("reason"),
        "return_value": None if xcom is None else masked(json.loads(xcom)),
    })
    return 1 if result["state"] == "failed" else 0


def render(dag, task, spec, memory, options):
    """Prints the rendered template fields of a task, with secrets masked."""
    try:
        attempt = backends.current().try_in_foreground(dag, task, spec, memory)
        attempt.prepare()
    except Exception as error:
        if type(error).__name__ == "ParamValidationError":
            print_status(f"error: the params of this run are not valid: {error}")
            return 1
        print_status(explain(error))
        hint = missing_date(error) if spec["logical_date"] is None else None
        if hint:
            print_status(hint)
        return 1
    line = f"# {'-' * 58}"
    fields = {field: masked_value(getattr(attempt.task, field), field) for field in attempt.task.template_fields}
    text = "\n".join(f"{line}\n# property: {field}\n{line}\n{value}" for field, value in fields.items())
    report(options, text, {"dag_id": dag.dag_id, "task_id": task.task_id, "map_index": spec["map_index"], "rendered_fields": fields})
    return 0


def masked_value(value, name=""):
    """Returns a rendered value with secrets masked: secrets that were read, and values with a sensitive name."""
    if isinstance(value, dict):
        return {masking.hide(str(key)): masked_value(item, str(key)) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(masked_value(item, name) for item in value) if type(value) in (list, tuple) else masking.hide(str(value))
    if name and masking.is_sensitive(name) and value not in (None, ""):
        return "***"
    return value if value is None or isinstance(value, (bool, int, float)) else masking.hide(str(value))
