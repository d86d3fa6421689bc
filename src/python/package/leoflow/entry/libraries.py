"""Installed libraries that a warm Python loads ahead once a task or a parse has used one."""

from __future__ import annotations

import json
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from leoflow.entry.workspace import Workspace

# Those that are as good after a fork as before: but for numpy none starts a thread, and but for numpy and pandas none reads
# variables when it is imported. Each with what is imported of it when it is first used.
PARTS = {"jinja2": ("jinja2.nativetypes", "jinja2.sandbox"), "numpy": (), "pandas": (), "pendulum": (), "requests": ()}
# The packages that were loaded before anything was known of a workspace, with what they have loaded themselves.
loaded_ahead: set[str] = set()


def load_ahead(names: Iterable[str], load: Callable[[Iterable[str]], None]) -> None:
    before = set(sys.modules)
    load(part for name in names if name in PARTS for part in (name, *PARTS[name]))
    loaded_ahead.update(name.partition(".")[0] for name in set(sys.modules) - before)


def seed_numpy():
    """In a fork of a warm Python: no two have the same random numbers."""
    random = sys.modules.get("numpy.random")
    if random is not None:
        random.seed()


def threads() -> int:
    return len(os.listdir("/proc/self/task"))


def end_threads() -> None:
    """numpy's arithmetic has threads of its own, which end before a fork and begin again where they are needed."""
    if threads() > 1:
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        os.waitpid(pid, 0)
    if threads() > 1:
        raise RuntimeError(f"a module has started {threads() - 1} thread(s), which a fork would lose")


def begin_again_if_too_late(environment: dict[str, str], options: dict[str, Any]) -> None:
    """In a task that was forked, once the variables of its project are set: one that a library has read already counts
    only for a Python that begins now, in the environment of before. That is the same process."""
    names = tuple(options.get("read_by_libraries", ()))

    def read(variables):
        return {name: value for name, value in variables.items() if name.startswith(names)}

    if "numpy" in loaded_ahead and read(os.environ) != read(environment):
        arguments = [*sys.orig_argv[:-2], "task", json.dumps(options)]
        os.execve(sys.executable, arguments, environment)


def in_use(workspace: Workspace) -> list[str]:
    """Those that this process has loaded, and that are not the workspace's own."""
    files = {name: getattr(sys.modules.get(name), "__file__", None) for name in PARTS}
    return [name for name, file in files.items() if file and not workspace.owns(file)]
