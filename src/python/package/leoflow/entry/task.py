"""The process of one try of one task."""

from __future__ import annotations

import _signal
import atexit
import json
import os
import signal

from leoflow.common import leoflow_server, plain_files, task_log
from leoflow.common.hints import error_hint
from leoflow.common.reports import clean, describe
from leoflow.common.task_log import log_error
from leoflow.entry import backends, libraries
from leoflow.entry.workspace import Workspace, prepare
from leoflow.running import fork_signals, keeper_pipe, loading

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

# Time limit for functions that a task has registered with `atexit`; that of OpenTelemetry takes up to 30 s.
EXIT_SECONDS = 60


def begin(options: dict[str, Any]) -> dict[str, Any]:
    """Prepares the process for the user's code; returns the description of the try, with the code of its DAG version."""
    loading.begin()
    prepare(support=options.get("support"))
    fork_signals.reset_handlers()
    folder = options["folder"]
    return {**read_file(folder, "spec.json"), **read_file(folder, "code.json")}


def read_file(folder, name):
    path = os.path.join(folder, name)
    return json.loads(plain_files.retry_transient(name, lambda: plain_files.read(path)))


def enter_workspace(spec: dict[str, Any], options: dict[str, Any], restart: Callable[..., None]) -> Workspace:
    """Sets the variables of the project and the task. Calls `restart` if something has read them already."""
    workspace = Workspace(spec["roots"], spec["sources"])
    environment = dict(os.environ)
    workspace.enter()
    os.environ.update(spec.get("env") or {})
    libraries.restart_if_too_late(environment, "task", options, restart)
    return workspace


def main(options: dict[str, Any], template: Any = None) -> None:
    """Runs the try. In a fork of a template (`warm/template.py`), the DAG file has run already."""
    own_pid = os.getpid()
    folder = options["folder"]
    spec = begin(options) if template is None else read_file(folder, "spec.json")
    reserved = os.path.join(folder, "result.reserve")
    plain_files.reserve(reserved)
    leoflow_server.configure(spec["socket"], spec["token"])
    error_hint.find_newer_package = leoflow_server.has_newer_package
    if template is None:
        workspace = enter_workspace(spec, options, libraries.restart)
        sink = task_log.to_keeper()
    else:
        workspace = template.workspace
    if "keeper" in options:
        keeper_pipe.connect(options["keeper"])
    attempt = None
    try:
        backend = backends.current()
        if template is None:
            # Precedes the import of Airflow, whose settings may name a class of the project.
            workspace.install()
            backend.begin_log(sink)
        attempt = backend.begin_try(spec, workspace, template and template.dags)
    except BaseException as error:
        log_error(error, "Failed to import the DAG file")
        problem = "its params are not valid" if "ParamValidationError" in type(error).__name__ else "the DAG file cannot be imported"
        result = {"state": "failed", "retry": True, "reason": f"{problem}: {describe(error)}"}
    else:
        loading.finish()
        result = attempt.run()
    if os.getpid() != own_pid:
        # This is a fork of the task that did not exit; only the task itself may write the result.
        os._exit(0 if result["state"] != "failed" else 1)
    # A signal must no longer change the outcome of the task.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    task_log.finish()
    libraries_used = libraries.in_use(workspace.owns)
    if libraries_used:
        result["libraries"] = libraries_used
    text = json.dumps(clean(result), ensure_ascii=False).encode()
    plain_files.write_whole(os.path.join(folder, "result.json"), reserved, text)
    if attempt is not None:
        attempt.run_callbacks()
        task_log.finish()
    leave(0 if result["state"] != "failed" else 1)


def leave(code: int) -> NoReturn:
    """Ends a task's process as Airflow does: runs functions registered with `atexit`, but does not wait for threads."""
    # The result is written already. SIGALRM ends the process if one of the functions hangs.
    _signal.signal(_signal.SIGALRM, _signal.SIG_DFL)
    signal.alarm(EXIT_SECONDS)
    try:
        atexit._run_exitfuncs()
    except BaseException:
        # `_run_exitfuncs` has printed the error.
        pass
    task_log.finish()
    os._exit(code)
