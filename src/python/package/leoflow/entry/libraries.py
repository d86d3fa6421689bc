"""Installed libraries that a warm Python loads ahead once a task or a parse has used one."""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from leoflow.entry.workspace import Workspace

# Those that are as good after a fork as before: none starts a thread, or reads variables when it is imported. Each with
# what is imported of it when it is first used.
PARTS = {"jinja2": ("jinja2.nativetypes", "jinja2.sandbox"), "pendulum": (), "requests": ()}
# The packages that were loaded before anything was known of a workspace, with what they have loaded themselves.
loaded_ahead: set[str] = set()


def load_ahead(names: Iterable[str], load: Callable[[Iterable[str]], None]) -> None:
    before = set(sys.modules)
    load(part for name in names if name in PARTS for part in (name, *PARTS[name]))
    loaded_ahead.update(name.partition(".")[0] for name in set(sys.modules) - before)


def in_use(workspace: Workspace) -> list[str]:
    """Those that this process has loaded, and that are not the workspace's own."""
    files = {name: getattr(sys.modules.get(name), "__file__", None) for name in PARTS}
    return [name for name, file in files.items() if file and not workspace.owns(file)]
