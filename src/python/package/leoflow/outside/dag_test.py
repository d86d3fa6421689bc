"""`DAG.test()` in a process that Leoflow did not start: runs the tasks in this process, one after another. The scheduler's
planner, in a child process, decides which task is next."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import signal
import subprocess
import sys
import threading
from datetime import datetime, timezone

from leoflow.authoring.states import DagRunState
from leoflow.common import local_modules, real_sdk, task_log
from leoflow.common.dates import aware, parse_time
from leoflow.common.exceptions import AirflowException, Unsupported
from leoflow.common.hints.commands import command, home
from leoflow.common.reports import clean
from leoflow.common.values import decode
from leoflow.entry import foreground, plugin_files, settings, structure
from leoflow.entry.workspace import Workspace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from leoflow.authoring.dag.dag import DAG

# Signals whose handlers a task replaces.
TASK_SIGNALS = (signal.SIGALRM, signal.SIGTERM)
# The DAG of the run in progress.
_running: DAG | None = None
_has_plugins = False


def run(dag: DAG, logical_date: datetime | str | None, run_conf: dict[str, Any] | None,
        mark_success_pattern: re.Pattern[str] | str | None, **unsupported: Any) -> TestedRun:
    """Runs a DAG; returns the run with `state` and `task_instances`. The run of a DAG whose task fails is returned, too,
    as in Airflow. Tasks whose whole id matches the pattern succeed without running."""
    for name, value in unsupported.items():
        if value:
            raise Unsupported(f"the argument {name} of DAG.test(){ADVICE.get(name, '')}")
    global _running
    if _running is not None:
        raise Unsupported(f"DAG.test() in a task of DAG.test() (of the DAG {_running.dag_id!r})")
    if local_modules.is_entered():
        raise Unsupported(f"DAG.test() in code that Leoflow runs (use `{command('dags test')}`, or call it below "
                          '`if __name__ == "__main__":`)')
    if dag.fileloc is None:
        raise Unsupported("DAG.test() of a DAG that no file defines")
    handlers = {number: signal.getsignal(number) for number in TASK_SIGNALS}
    if threading.current_thread() is not threading.main_thread():
        handlers = {}
    _running = dag
    streams = sys.stdout, sys.stderr
    planner = None
    try:
        planner = PlannerProcess(os.path.abspath(dag.fileloc))
        # Those of pytest, where it captures the output.
        sys.stdout, sys.stderr = map(foreground.MaskedStream, streams)
        return run_with(dag, planner, aware("logical_date", logical_date), run_conf or {}, mark_success_pattern)
    finally:
        sys.stdout, sys.stderr = streams
        _running = None
        if planner is not None:
            planner.end()
        for number, handler in handlers.items():
            # None: a handler that Python did not set.
            if handler is not None:
                signal.signal(number, handler)


ADVICE = {
    "conn_file_path": " (create its connections with `leoflow connections import`, or set AIRFLOW_CONN_… variables)",
    "variable_file_path": " (create its variables with `leoflow variables import`, or set AIRFLOW_VAR_… variables)",
    "use_executor": " (it runs the tasks in this process; `leoflow dags trigger` runs each in its own)",
}


def run_with(dag, planner, date, conf, mark_success_pattern):
    prepare = prepare_sdk if real_sdk.is_active() else prepare_small
    planner.send(clean({"structure": prepare(dag, planner.settings), "conf": conf}))
    date = None if date is None else date.astimezone(timezone.utc).isoformat()
    spec = {**foreground.new_run(dag.dag_id, date, conf, planner.settings["max_map_length"]), "is_outside": True}
    run = OutsideRun(dag, spec, planner, mark_success_pattern)
    state = run.run_to_end()
    run.call_back(state)
    foreground.print_status(f"{dag.dag_id}  {state}")
    return TestedRun(run, state)


def prepare_small(dag, project):
    """Checks a DAG, and loads what its run needs; returns its structure. `project` has its `roots` and `settings`."""
    if project["settings"]:
        settings.apply(project["settings"], [dag])
    dag.check()
    load_plugins(project["roots"])
    if not logging.getLogger().handlers:
        # pytest and the program itself show the events of loggers as they are configured.
        task_log.begin_loggers(task_log.to_terminal)
    return structure.dag_structure(dag, False)


def prepare_sdk(dag, project):
    """The same with Airflow's SDK."""
    from leoflow.sdk import dag_file, named_classes
    from leoflow.sdk import settings as sdk_settings
    from leoflow.sdk import structure as sdk_structure

    named_classes.check()
    if project["settings"]:
        sdk_settings.apply(project["settings"], [dag])
    with open(dag.fileloc, encoding="utf-8", errors="replace") as file:
        dag_file.check(dag, file.read())
    return sdk_structure.dag_structure(dag)


def load_plugins(roots):
    """Loads the plugins of the project, once per process."""
    global _has_plugins
    if not _has_plugins:
        _has_plugins = True
        workspace = Workspace(roots)
        plugin_files.load(workspace)
        for problem in workspace.plugin_problems:
            task_log.log_event("error", task_log.OWN, problem)


class OutsideRun(foreground.Run):
    """A run whose tasks run in a process that Leoflow did not start."""

    def __init__(self, dag, spec, planner, mark_success_pattern):
        super().__init__(dag, spec, planner)
        self.marked = re.compile(mark_success_pattern) if mark_success_pattern is not None else None

    def run(self, instance):
        if self.marked is not None and self.marked.fullmatch(instance["task_id"]):
            instance.update(state="running", ended={"state": "success", "retry": False, "skips": []})
        else:
            super().run(instance)


class TestedInstance:
    """A task instance of the run, like Airflow's TaskInstance."""

    def __init__(self, fields, run):
        self.task_id, self.map_index = fields["task_id"], fields["map_index"]
        self.state, self.try_number, self.max_tries = fields["state"], fields["try_number"], fields["max_tries"]
        self.dag_id, self.run_id = run.spec["dag_id"], run.spec["run_id"]
        self.task = run.dag.get_task(self.task_id)
        self.operator = self.task.task_type
        self._xcoms = run.memory.xcoms

    def xcom_pull(self, task_ids=None, *, key="return_value", map_indexes=None, default=None):
        """Returns an XCom of this instance, or of another task, or the default. Returns a list for several tasks, and for
        a mapped task without a map index."""
        if task_ids is not None and not isinstance(task_ids, str):
            return [self.xcom_pull(task_id, key=key, map_indexes=map_indexes, default=default) for task_id in task_ids]
        task_id = self.task_id if task_ids is None else task_ids
        if task_ids is not None and map_indexes is None:
            indexes = sorted(index for task, index, name in self._xcoms if (task, name) == (task_id, key) and index >= 0)
            if indexes:
                return [value_of(self._xcoms[task_id, index, key]) for index in indexes]
        map_index = map_indexes if map_indexes is not None else self.map_index if task_ids is None else -1
        text = self._xcoms.get((task_id, map_index, key))
        return default if text is None else value_of(text)

    def __repr__(self):
        return f"<TaskInstance: {foreground.instance_name(vars(self))} {self.run_id} [{self.state}]>"


def value_of(text):
    """Returns the value of an XCom's text."""
    if not real_sdk.is_active():
        return decode(text)
    from types import SimpleNamespace

    from airflow.sdk.execution_time.xcom import XCom

    # With the project's XCom backend.
    return XCom.deserialize_value(SimpleNamespace(value=json.loads(text)))


# The dates of a run, by attribute.
DATES = {"logical_date": "logical_date", "data_interval_start": "data_interval_start", "data_interval_end": "data_interval_end",
         "run_after": "run_after", "start_date": "run_start_date"}


class TestedRun:
    """The run that `DAG.test()` returns, like Airflow's DagRun."""

    def __init__(self, run, state):
        spec = run.spec
        self.dag_id, self.run_id, self.conf, self.state = spec["dag_id"], spec["run_id"], spec["conf"], DagRunState(state)
        self.dag, self.run_type = run.dag, spec["run_type"]
        for name, field in DATES.items():
            setattr(self, name, None if spec[field] is None else parse_time(spec[field]))
        self.end_date = datetime.now(timezone.utc)
        self.task_instances = [TestedInstance(fields, run) for fields in run.instances]

    def get_task_instances(self, state=None, session=None):
        """Returns all instances, or those with the state or with one of the states."""
        states = [state] if state is None or isinstance(state, str) else state
        return [instance for instance in self.task_instances if state is None or instance.state in states]

    def get_task_instance(self, task_id, session=None, *, map_index=-1):
        return next((instance for instance in self.task_instances
                     if (instance.task_id, instance.map_index) == (task_id, map_index)), None)

    def __repr__(self):
        return f"<DagRun {self.dag_id}: {self.run_id}, state:{self.state}>"


class PlannerProcess:
    """The scheduler's planner in a child, over its standard input and output. The child ends with this process."""

    def __init__(self, path: str) -> None:
        self.arguments = [*program(), "dags", "plan", path]
        # A session of its own: Ctrl-C at the terminal is for the task and its debugger.
        self.process = subprocess.Popen(self.arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0,
                                        start_new_session=True)
        self.stream = io.TextIOWrapper(io.BufferedRWPair(self.process.stdout, self.process.stdin), encoding="utf-8")
        self.settings = self.receive()

    def send(self, message):
        self.stream.write(json.dumps(message) + "\n")
        self.stream.flush()

    def receive(self):
        line = self.stream.readline()
        if not line:
            raise AirflowException(f"`{' '.join(self.arguments)}` failed with exit code {self.process.wait()}; its output "
                                   "has the reason")
        answer = json.loads(line)
        if "error" in answer:
            raise AirflowException(answer["error"])
        return answer

    def ask(self, question: dict[str, Any]) -> dict[str, Any]:
        self.send(question)
        return self.receive()

    def length(self, expression: Any, lengths: dict[str, int]) -> int | None:
        """Evaluates a length expression, as `foreground.Planner` does."""
        return self.ask({"kind": "length", "length": expression, "lengths": lengths})["length"]

    def end(self):
        try:
            self.stream.close()
        except OSError:
            # The child has ended before.
            pass
        # A process that a task left may hold its standard input open. The planner has no state.
        self.process.kill()
        self.process.wait()


def program() -> list[str]:
    """Returns the program of this package's home, with the option that chooses the home; else the one on the PATH."""
    import shutil

    option = ["--home", home()] if home() is not None else []
    names = [os.path.join(home(), "bin", "leoflow")] if option else []
    found = next(filter(None, map(shutil.which, (*names, "leoflow"))), None)
    if found is None:
        raise AirflowException(f"DAG.test() needs the program leoflow, which is not in the folders of PATH "
                               f"({os.environ.get('PATH', '')}): add its folder to PATH")
    return [found, *option]
