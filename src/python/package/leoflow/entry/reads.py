"""Notes the files that a DAG file reads while it is imported."""

from __future__ import annotations

import os
import sys

from leoflow.common.reports import clean

TYPE_CHECKING = False
if TYPE_CHECKING:
    from leoflow.entry.workspace import Workspace

# Maximum number of files that are noted.
MOST = 1000


def note(workspace: Workspace, is_existing: dict[str, bool]) -> list[bool]:
    """Adds to `is_existing` each workspace file that is opened for reading, and whether it exists, until the returned list
    is cleared: an audit hook cannot be removed."""
    is_active = [True]

    def hook(event, arguments):
        if event != "open" or not is_active or not isinstance(arguments[0], (str, bytes)) or len(is_existing) >= MOST:
            return
        _, mode, flags = arguments
        reads = "r" in mode if mode else (flags or 0) & (os.O_ACCMODE | os.O_DIRECTORY) == os.O_RDONLY
        path = workspace.own_path(os.path.abspath(os.fsdecode(arguments[0])))
        # Paths that are not valid Unicode cannot be reported.
        if reads and workspace.owns(path) and "site-packages" not in path and clean(path) == path:
            is_existing.setdefault(path, os.path.isfile(path))

    sys.addaudithook(hook)
    return is_active
