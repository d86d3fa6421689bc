"""The child process that parses a DAG file: runs the file and writes the result as JSON to a descriptor."""

from __future__ import annotations

import json
import os
import sys

from leoflow.common import leoflow_server, local_modules, real_sdk
from leoflow.common.hints import packages
from leoflow.common.reports import clean, explain
from leoflow.common.settings import airflow_settings, image_folder, secrets_backend
from leoflow.entry import backends, dotenv, libraries, reads
from leoflow.entry.workspace import Workspace, prepare
from leoflow.running import loading

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def structures_of(workspace, path, settings, is_validation):
    """Imports the file; returns the structures of its DAGs."""
    backend = backends.current()
    loaded = backend.dags_of(workspace, path, settings)
    dags = backend.structures(loaded, workspace)
    # Raises an error, which becomes the file's, for values that JSON cannot represent.
    json.dumps(dags, allow_nan=False)
    for dag in dags:
        dag["place"] = clean(dag["place"])
    if clean(dags) != dags:
        raise ValueError("a text of the DAG holds the character NUL, or is not valid Unicode")
    if is_validation:
        workspace.email_problems = email_problems(loaded)
    return dags


def email_problems(dags):
    """Returns a warning if a task sends e-mail and none can be sent."""
    senders = (dag.dag_id for dag in dags for task in dag.tasks if sends_email(task))
    dag_id = next(senders, None)
    problem = backends.current().email_problem() if dag_id is not None else None
    return [f"The e-mails of {dag_id} are not sent: {problem}"] if problem else []


def sends_email(task):
    # Mapped operators of Airflow's SDK have these values among the arguments of `partial`.
    values = {**getattr(task, "partial_kwargs", {}), **vars(task)}
    on_failure = values.get("email_on_failure", True)
    return bool(values.get("email")) and bool(on_failure or values.get("email_on_retry", True) and values.get("retries"))


def parse(path, roots, settings, enter=Workspace.enter, is_validation=False):
    workspace = Workspace(roots)
    is_existing = {}
    reads.note(workspace, is_existing)
    enter(workspace)
    workspace.install()
    # With errors in `.env`, the DAGs would run with missing or truncated values, so they are not loaded.
    env_errors, env_warnings = dotenv.problems(local_modules.project_roots(workspace.roots))
    result = {"dags": [], "error": clean("\n".join(env_errors)) or None}
    try:
        if env_errors:
            workspace.source(os.path.abspath(path))
        else:
            result["dags"] = structures_of(workspace, path, settings, is_validation)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        result = {"dags": [], "error": clean(explain(error))}
    result["sources"] = {name: text for name, text in workspace.executed.items() if workspace.owns(name)}
    # A plugin may be added, which no read of a file shows.
    for folder in local_modules.plugins_folders(workspace.roots):
        is_existing.setdefault(folder, os.path.isdir(folder))
    # The server parses the DAGs again when one of these files changes.
    others = {name: exists for name, exists in is_existing.items() if name not in result["sources"]}
    result["reads"] = sorted(others)
    result["absent"] = sorted(name for name, exists in others.items() if not exists)
    result["asks"] = leoflow_server.was_queried()
    result["libraries"] = libraries.in_use(workspace.owns)
    if is_validation:
        workspace.plugin_problems += backends.current().plugin_problems()
        env_warnings += airflow_settings.without_effect(real_sdk.is_active())
        if result["error"] is None and not real_sdk.is_active():
            env_warnings += secrets_backend.problems()
    result["warnings"] = clean([*env_warnings, *image_folder.warnings(), *workspace.plugin_problems, *workspace.email_problems])
    return result


def main(options: dict[str, Any]) -> None:
    loading.begin()
    prepare(options.get("limits"), options.get("support"))
    packages.unread = options.get("unread", [])
    if options.get("socket"):
        # The import of a file has a time limit, so it must not wait long for a server that is down.
        leoflow_server.configure(options["socket"], retry_seconds=5)
    own_pid = os.getpid()
    environment = dict(os.environ)

    def enter(workspace):
        workspace.enter()
        libraries.restart_if_too_late(environment, "parse", options)

    result = parse(options["path"], options["roots"], options.get("settings"), enter, options.get("is_validation"))
    if os.getpid() != own_pid:
        # The file forked this process; only the original may answer.
        os._exit(0)
    text = json.dumps(result, ensure_ascii=True).encode()
    sys.stdout.flush()
    sys.stderr.flush()
    with os.fdopen(options["descriptor"], "wb") as pipe:
        pipe.write(text)
    # Exits without waiting for threads that the file started.
    os._exit(0)
