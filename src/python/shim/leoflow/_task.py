"""The process of one try of one task."""

import copy
import json
import logging
import os
import signal
import sys

from . import _active, _context, _load, _stores
from ._errors import (
    AirflowException,
    AirflowFailException,
    AirflowSkipException,
    AirflowTaskTerminated,
    AirflowTaskTimeout,
    XComNotFound,
    clean,
    explain,
)
from ._graph import resolve
from ._taskflow import check_outputs
from ._values import encode


def pull(ti, reference):
    found = ti._store.pull(ti.dag_id, ti.run_id, [reference.operator.task_id], reference.key)
    task_id = reference.operator.task_id
    if task_id in found:
        return found[task_id]
    if reference.key == "return_value" or getattr(reference.operator, "multiple_outputs", False):
        return None
    raise XComNotFound(f'XComArg result from {task_id} at {ti.dag_id} with key="{reference.key}" is not found!')


def resolve_arguments(task, ti):
    for field in task.template_fields:
        setattr(task, field, resolve(getattr(task, field), lambda reference: pull(ti, reference)))


class Deadline:
    """execution_timeout, inside the process so that the task's own clean-up runs. The process
    outside ends what does not care."""

    def __init__(self, task, folder=None):
        self.task = task
        self.folder = folder

    def __enter__(self):
        def over(_number, _frame):
            raise AirflowTaskTimeout(f"Timeout, {self.task.task_id} ran for longer than {self.task.execution_timeout}")

        def terminated(_number, _frame):
            raise AirflowTaskTerminated("Task received SIGTERM signal")

        if self.folder:
            # From here on the time counts, for whoever looks from outside too.
            open(os.path.join(self.folder, "began"), "w").close()
        signal.signal(signal.SIGALRM, over)
        signal.signal(signal.SIGTERM, terminated)
        if self.task.execution_timeout is not None:
            limit = self.task.execution_timeout.total_seconds()
            if limit <= 0:
                raise AirflowTaskTimeout(f"Timeout, {self.task.task_id} has no time at all")
            signal.setitimer(signal.ITIMER_REAL, limit)

    def __exit__(self, *_):
        signal.setitimer(signal.ITIMER_REAL, 0)


def execute(task, context, folder=None):
    """Runs it; returns its XComs as JSON texts."""
    ti = context["ti"]
    # A copy: another try in this process begins with the arguments as they were written.
    task = copy.copy(task)
    context = {**context, "task": task}
    ti.task = task
    resolve_arguments(task, ti)
    os.environ.update(ti.airflow_environment())
    _active.set_context(context)
    try:
        with Deadline(task, folder):
            try:
                value = task.execute(context)
            except (AirflowTaskTimeout, AirflowTaskTerminated, KeyboardInterrupt):
                # Here and not in the handler: what was interrupted has let go of its locks.
                task.on_kill()
                raise
    finally:
        _active.set_context(None)
    return outputs(task, value)


def outputs(task, value):
    """The XComs of a result, as JSON texts by key."""
    if value is None:
        return {}
    xcoms = {}
    if getattr(task, "multiple_outputs", False):
        check_outputs(value)
        xcoms = {key: encode(key, one) for key, one in value.items()}
    return {**xcoms, "return_value": encode("return_value", value)}


def outcome_of(task, context, folder):
    """What became of it: state, reason, XComs."""
    try:
        return {"state": "success", "xcoms": execute(task, context, folder)}
    except AirflowSkipException as error:
        print(f"Skipped: {error}")
        return {"state": "skipped", "reason": str(error)}
    except AirflowFailException as error:
        show(error)
        return {"state": "failed", "retry": False, "reason": describe(error)}
    except BaseException as error:
        show(error)
        return {"state": "failed", "retry": True, "reason": describe(error)}


def describe(error):
    if isinstance(error, SystemExit):
        return f"the task's code called sys.exit({error.code!r})"
    return f"{type(error).__name__}: {error}".rstrip(": ")[:1000]


def show(error):
    sys.stderr.write(explain(error) + "\n")


def write_whole(path, value):
    """Complete or absent, for whoever reads it after we are gone."""
    partial = f"{path}.partial"
    with open(partial, "w", encoding="utf-8") as file:
        json.dump(clean(value), file, ensure_ascii=False)
    os.rename(partial, path)


def load_task(spec):
    workspace = _load.Workspace(spec["roots"], spec["sources"])
    workspace.install()
    for dag in _load.dags(workspace, spec["fileloc"]):
        if dag.dag_id == spec["dag_id"]:
            return dag, dag.get_task(spec["task_id"])
    raise AirflowException(f"{spec['fileloc']} does not make the DAG {spec['dag_id']!r} any more")


def forget_in_forks():
    """What the task forks is not the task: signals mean there what they mean everywhere."""

    def in_child():
        for number in (signal.SIGTERM, signal.SIGALRM):
            signal.signal(number, signal.SIG_DFL)

    os.register_at_fork(after_in_child=in_child)


def main(options):
    _load.prepare()
    own = os.getpid()
    forget_in_forks()
    logging.basicConfig(level=logging.INFO, format="[%(levelname)s] %(name)s: %(message)s", stream=sys.stderr)
    folder = options["folder"]
    with open(os.path.join(folder, "spec.json"), encoding="utf-8") as file:
        spec = json.load(file)
    _stores.use(spec["socket"], spec["token"])
    try:
        dag, task = load_task(spec)
    except BaseException as error:
        show(error)
        result = {"state": "failed", "retry": True, "reason": f"the DAG file cannot be imported: {describe(error)}"}
    else:
        result = outcome_of(task, _context.build(spec, dag, task, _stores.TaskXComs()), folder)
    if os.getpid() != own:
        # A fork that did not leave by itself: only the task may tell how the task ended.
        os._exit(0 if result["state"] != "failed" else 1)
    # From here on the task has ended: no signal may turn its outcome round.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.stdout.flush()
    sys.stderr.flush()
    write_whole(os.path.join(folder, "result.json"), result)
    os._exit(0 if result["state"] != "failed" else 1)
