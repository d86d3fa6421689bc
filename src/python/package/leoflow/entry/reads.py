"""Notes the files that a DAG file reads while it is imported."""

from __future__ import annotations

import os
import sys

from leoflow.common.reports import clean

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from leoflow.entry.workspace import Workspace

# Maximum number of files that are noted.
MOST = 1000


def note(workspace: Workspace, is_existing: dict[str, bool]) -> None:
    """Installs an audit hook that adds to `is_existing` each workspace file that is opened for reading, and whether it
    exists."""

    def hook(event, arguments):
        if event != "open" or not is_read(arguments) or len(is_existing) >= MOST:
            return
        path = workspace.own_path(os.path.abspath(os.fsdecode(arguments[0])))
        # Paths that are not valid Unicode cannot be reported.
        if workspace.owns(path) and "site-packages" not in path and clean(path) == path:
            is_existing.setdefault(path, os.path.isfile(path))

    sys.addaudithook(hook)


def is_read(arguments: tuple[Any, ...]) -> bool:
    """True for the arguments of the audit event `open` if a path is opened for reading."""
    path, mode, flags = arguments
    if not isinstance(path, (str, bytes)):
        return False
    return "r" in mode if mode else (flags or 0) & (os.O_ACCMODE | os.O_DIRECTORY) == os.O_RDONLY
