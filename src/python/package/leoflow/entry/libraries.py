"""Installed libraries that a warm Python loads ahead once a task or a parse has used one."""

from __future__ import annotations

import json
import os
import sys

from leoflow.common import real_sdk
from leoflow.entry import dotenv

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from leoflow.entry.workspace import Workspace

# Those that are as good after a fork as before: but for numpy none starts a thread, and but for numpy and pandas none reads
# variables when it is imported. Each with what is imported of it when it is first used.
PARTS = {"jinja2": ("jinja2.nativetypes", "jinja2.sandbox"), "numpy": (), "pandas": (), "pendulum": (), "requests": ()}
# What libraries read while they are loaded, so that they start no thread. pandas imports pyarrow, whose jemalloc has one
# (`JE_ARROW_MALLOC_CONF` is jemalloc's MALLOC_CONF under the prefix that Arrow builds it with), whichever pool is in use.
WITHOUT_THREADS = {"JE_ARROW_MALLOC_CONF": "background_thread:false"}
# The packages that were loaded before anything was known of a workspace, with what they have loaded themselves.
loaded_ahead: set[str] = set()
# Whether this process is a fork of a warm Python.
forked_from_warm = False
# Whether it has loaded modules of Airflow's that have to import a class first which a setting names.
is_loaded_too_early = False
# Variables of Airflow's that it asks for whenever it needs them, or that we put in force ourselves.
NOT_READ_AHEAD = ("AIRFLOW__API__BASE_URL", "AIRFLOW__CORE__DAGS_FOLDER", "AIRFLOW__CORE__PLUGINS_FOLDER")


def load_ahead(names: Iterable[str], load: Callable[[Iterable[str]], None]) -> tuple[str, str] | None:
    """Returns the first that has started a thread which stays, with the reason; the rest are not loaded then."""
    before, own = set(sys.modules), {name: os.environ.get(name) for name in WITHOUT_THREADS}
    os.environ.update(WITHOUT_THREADS)
    try:
        for name in names:
            if name in PARTS:
                load((name, *PARTS[name]))
                end_threads()
                if threads():
                    return name, f"it starts threads, which no fork has: {', '.join(threads())}"
    finally:
        # Forks have the variables of before.
        for variable, value in own.items():
            os.environ.pop(variable)
            if value is not None:
                os.environ[variable] = value
    loaded_ahead.update(name.partition(".")[0] for name in set(sys.modules) - before)
    return None


def seed_numpy():
    """In a fork of a warm Python: no two have the same random numbers."""
    random = sys.modules.get("numpy.random")
    if random is not None:
        random.seed()


def threads() -> list[str]:
    """The names of all but the main one, as the kernel has them."""
    found = []
    for thread in os.listdir("/proc/self/task"):
        if int(thread) != os.getpid():
            try:
                with open(f"/proc/self/task/{thread}/comm", encoding="utf-8", errors="replace") as file:
                    found.append(file.read().strip())
            except (FileNotFoundError, ProcessLookupError):
                # It has ended meanwhile.
                pass
    return sorted(found)


def end_threads() -> None:
    """numpy's arithmetic has threads of its own, which end before a fork and begin again where they are needed."""
    if threads():
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        os.waitpid(pid, 0)


def begin_again_if_too_late(environment: dict[str, str], job: str, options: dict[str, Any]) -> None:
    """In a fork of a warm Python, once the variables of its project are set: one that Airflow or a library has read already
    counts only for a Python that begins now, in the environment of before. That is the same process."""
    if not forked_from_warm:
        return
    names = dotenv.READ_AT_START
    if "numpy" in loaded_ahead:
        names += tuple(options.get("read_by_libraries", ()))
    if real_sdk.is_used():
        names += ("AIRFLOW__", "AIRFLOW_CONFIG")

    def read(variables):
        return {name: value for name, value in variables.items() if name.startswith(names) and name not in NOT_READ_AHEAD}

    if is_loaded_too_early or read(os.environ) != read(environment):
        arguments = [*sys.orig_argv[:-2], job, json.dumps(options)]
        os.execve(sys.executable, arguments, environment)


def in_use(workspace: Workspace) -> list[str]:
    """Those that this process has loaded, and that are not the workspace's own."""
    files = {name: getattr(sys.modules.get(name), "__file__", None) for name in PARTS}
    return [name for name, file in files.items() if file and not workspace.owns(file)]
