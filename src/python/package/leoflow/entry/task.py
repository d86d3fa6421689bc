"""The process of one try of one task."""

from __future__ import annotations

import json
import os
import signal

from leoflow.common import leoflow_server, plain_files, task_log
from leoflow.common.reports import clean, describe
from leoflow.common.task_log import show
from leoflow.entry import forks, libraries, sides
from leoflow.entry.workspace import Workspace, prepare
from leoflow.running.keeper_pipe import tell_secrets_to

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def forget_in_forks():
    """What the task forks is not the task: signals mean there what they mean everywhere."""

    def in_child():
        for number in (signal.SIGTERM, signal.SIGALRM):
            signal.signal(number, signal.SIG_DFL)

    os.register_at_fork(after_in_child=in_child)


def main(options: dict[str, Any]) -> None:
    prepare(support=options.get("support"))
    own = os.getpid()
    forget_in_forks()
    folder = options["folder"]
    spec_file, reserved = os.path.join(folder, "spec.json"), os.path.join(folder, "result.reserve")
    spec = json.loads(plain_files.until_it_passes("spec.json", lambda: plain_files.read(spec_file)))
    plain_files.reserve(reserved)
    leoflow_server.use(spec["socket"], spec["token"])
    workspace = Workspace(spec["roots"], spec["sources"])
    environment = dict(os.environ)
    workspace.enter()
    os.environ.update(spec.get("env") or {})
    libraries.begin_again_if_too_late(environment, "task", options)
    take = task_log.to_keeper()
    if "secrets" in options:
        tell_secrets_to(options["secrets"])
    attempt = None
    try:
        # Before Airflow is imported: a setting may name a class of the project.
        workspace.install()
        side = sides.current()
        side.begin_log(take)
        attempt = side.begin_try(spec, workspace, folder)
    except BaseException as error:
        show(error, "Failed to import the DAG file")
        what = "its params are not valid" if "ParamValidationError" in type(error).__name__ else "the DAG file cannot be imported"
        result = {"state": "failed", "retry": True, "reason": f"{what}: {describe(error)}"}
    else:
        forks.has_loaded()
        result = attempt.run()
    if os.getpid() != own:
        # A fork that did not leave by itself: only the task may tell how the task ended.
        os._exit(0 if result["state"] != "failed" else 1)
    # From here on the task has ended: no signal may turn its outcome round.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    task_log.finish()
    used = libraries.in_use(workspace)
    if used:
        result["libraries"] = used
    text = json.dumps(clean(result), ensure_ascii=False).encode()
    plain_files.write_whole(os.path.join(folder, "result.json"), reserved, text)
    if attempt is not None:
        attempt.tell()
        task_log.finish()
    os._exit(0 if result["state"] != "failed" else 1)
