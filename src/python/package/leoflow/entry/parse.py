"""The parsing child: runs one DAG file and writes what it found to a descriptor, as JSON."""

from __future__ import annotations

import json
import os
import sys

from leoflow.common import leoflow_server
from leoflow.common.reports import clean, explain
from leoflow.entry import libraries, sides
from leoflow.entry.workspace import Workspace, prepare

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def note_reads(workspace, read):
    """Files of the workspace that are opened for reading, and whether they were there."""

    def hook(event, arguments):
        if event != "open" or not isinstance(arguments[0], (str, bytes)) or len(read) >= 1000:
            return
        _, mode, flags = arguments
        reads = "r" in mode if mode else (flags or 0) & (os.O_ACCMODE | os.O_DIRECTORY) == os.O_RDONLY
        path = os.path.abspath(os.fsdecode(arguments[0]))
        # What is half a character of no text cannot be said.
        if reads and workspace.owns(path) and "site-packages" not in path and clean(path) == path:
            read.setdefault(path, os.path.isfile(path))

    sys.addaudithook(hook)


def parse(path, roots, settings, enter=Workspace.enter):
    workspace = Workspace(roots)
    read = {}
    note_reads(workspace, read)
    enter(workspace)
    workspace.install()
    result = {"dags": [], "error": None}
    try:
        side = sides.current()
        found = side.dags_of(workspace, path, settings)
        result["dags"] = side.structures(found, workspace)
        # What cannot be kept is the file's fault too.
        json.dumps(result, allow_nan=False)
        for one in result["dags"]:
            one["place"] = clean(one["place"])
        if clean(result["dags"]) != result["dags"]:
            raise ValueError("a text of the DAG holds the character NUL, or is no Unicode")
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        result = {"dags": [], "error": clean(explain(error))}
    result["sources"] = {name: text for name, text in workspace.ran.items() if workspace.owns(name)}
    # What else decided about the DAGs: they are parsed again when it changes.
    read = {name: there for name, there in read.items() if name not in result["sources"]}
    result["reads"] = sorted(read)
    result["absent"] = sorted(name for name, there in read.items() if not there)
    result["asks"] = leoflow_server.was_asked()
    result["libraries"] = libraries.in_use(workspace)
    return result


def main(options: dict[str, Any]) -> None:
    prepare(options.get("limits"), options.get("support"))
    if options.get("socket"):
        # A file's top level has half a minute; it must not spend it on a server that is away.
        leoflow_server.use(options["socket"], patience=5)
    own = os.getpid()
    environment = dict(os.environ)

    def enter(workspace):
        workspace.enter()
        libraries.begin_again_if_too_late(environment, "parse", options)

    result = parse(options["path"], options["roots"], options.get("settings"), enter)
    if os.getpid() != own:
        # A fork of the file's own doing: only one of the two may answer.
        os._exit(0)
    text = json.dumps(result, ensure_ascii=True).encode()
    sys.stdout.flush()
    sys.stderr.flush()
    with os.fdopen(options["descriptor"], "wb") as pipe:
        pipe.write(text)
    # What the file left running, threads for example, must not keep us.
    os._exit(0)
