"""The process of one try of one task."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys

from leoflow.authoring import parsing_context
from leoflow.common import leoflow_server, plain_files
from leoflow.common.exceptions import AirflowException
from leoflow.common.reports import clean
from leoflow.entry import libraries
from leoflow.entry.workspace import Workspace, dags_of, prepare
from leoflow.running.context import build_context
from leoflow.running.keeper_pipe import tell_secrets_to
from leoflow.running.task_api import TaskApi
from leoflow.running.task_try import Try, describe, show
from leoflow.running.xcoms import TaskXComs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def write_whole(path, value):
    """Complete or absent, for whoever reads it after we are gone."""
    partial = f"{path}.partial"
    plain_files.write(partial, json.dumps(clean(value), ensure_ascii=False).encode())
    os.rename(partial, path)


def load_task(spec, workspace):
    workspace.install()
    parsing_context.is_for(spec["dag_id"], spec["task_id"])
    for dag in dags_of(workspace, spec["fileloc"], spec.get("settings")):
        if dag.dag_id == spec["dag_id"]:
            return dag, dag.get_task(spec["task_id"])
    raise AirflowException(f"{spec['fileloc']} does not make the DAG {spec['dag_id']!r} any more")


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
    logging.basicConfig(level=logging.INFO, format="[%(levelname)s] %(name)s: %(message)s", stream=sys.stderr)
    folder = options["folder"]
    spec = json.loads(plain_files.read(os.path.join(folder, "spec.json")))
    leoflow_server.use(spec["socket"], spec["token"])
    workspace = Workspace(spec["roots"], spec["sources"])
    environment = dict(os.environ)
    workspace.enter()
    os.environ.update(spec.get("env") or {})
    libraries.begin_again_if_too_late(environment, options)
    if "secrets" in options:
        tell_secrets_to(options["secrets"])
    attempt = None
    try:
        dag, task = load_task(spec, workspace)
        context = build_context(spec, dag, task, TaskXComs(), TaskApi())
        attempt = Try(task, context, folder, spec.get("max_map_length", 1024))
    except BaseException as error:
        show(error)
        what = "its params are not valid" if "ParamValidationError" in type(error).__name__ else "the DAG file cannot be imported"
        result = {"state": "failed", "retry": True, "reason": f"{what}: {describe(error)}"}
    else:
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
