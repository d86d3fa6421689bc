"""The process of one try of one task."""

from __future__ import annotations

import json
import os
import signal
import sys

from leoflow.common import leoflow_server, plain_files
from leoflow.common.reports import clean, describe, show
from leoflow.entry import forks, libraries, sides
from leoflow.entry.workspace import Workspace, prepare
from leoflow.running.keeper_pipe import tell_secrets_to

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def write_whole(path, value):
    """Complete or absent, for whoever reads it after we are gone."""
    partial = f"{path}.partial"
    plain_files.write(partial, json.dumps(clean(value), ensure_ascii=False).encode())
    os.rename(partial, path)


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
    side = sides.current()
    folder = options["folder"]
    spec = json.loads(plain_files.read(os.path.join(folder, "spec.json")))
    leoflow_server.use(spec["socket"], spec["token"])
    workspace = Workspace(spec["roots"], spec["sources"])
    environment = dict(os.environ)
    workspace.enter()
    os.environ.update(spec.get("env") or {})
    libraries.begin_again_if_too_late(environment, options)
    side.begin_log()
    if "secrets" in options:
        tell_secrets_to(options["secrets"])
    attempt = None
    try:
        workspace.install()
        attempt = side.begin_try(spec, workspace, folder)
    except BaseException as error:
        show(error)
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
    sys.stdout.flush()
    sys.stderr.flush()
    used = libraries.in_use(workspace)
    if used:
        result["libraries"] = used
    write_whole(os.path.join(folder, "result.json"), result)
    if attempt is not None:
        attempt.tell()
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(0 if result["state"] != "failed" else 1)
