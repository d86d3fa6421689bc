"""The process of one try of one task."""

from __future__ import annotations

import json
import os
import signal

from leoflow.common import leoflow_server, plain_files, task_log
from leoflow.common.hints import error_hint
from leoflow.common.reports import clean, describe
from leoflow.common.task_log import log_error
from leoflow.entry import backends, forks, libraries
from leoflow.entry.workspace import Workspace, prepare
from leoflow.running import fork_signals, loading
from leoflow.running.keeper_pipe import send_secrets_to

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def main(options: dict[str, Any]) -> None:
    loading.begin()
    prepare(support=options.get("support"))
    own_pid = os.getpid()
    fork_signals.reset_handlers()
    folder = options["folder"]
    spec_file, reserved = os.path.join(folder, "spec.json"), os.path.join(folder, "result.reserve")
    spec = json.loads(plain_files.retry_transient("spec.json", lambda: plain_files.read(spec_file)))
    plain_files.reserve(reserved)
    leoflow_server.configure(spec["socket"], spec["token"])
    error_hint.find_newer_package = leoflow_server.has_newer_package
    workspace = Workspace(spec["roots"], spec["sources"])
    environment = dict(os.environ)
    workspace.enter()
    os.environ.update(spec.get("env") or {})
    libraries.restart_if_too_late(environment, "task", options)
    sink = task_log.to_keeper()
    if "secrets" in options:
        send_secrets_to(options["secrets"])
    attempt = None
    try:
        # Precedes the import of Airflow, whose settings may name a class of the project.
        workspace.install()
        backend = backends.current()
        backend.begin_log(sink)
        attempt = backend.begin_try(spec, workspace, folder)
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
    forks.leave(0 if result["state"] != "failed" else 1)
