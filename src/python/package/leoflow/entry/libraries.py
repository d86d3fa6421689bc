"""Preloads installed libraries into a warm Python once a task or a parse has used them."""

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

# Libraries that work after a fork, each with the modules that its first use imports. Only numpy starts threads; only
# numpy and pandas read variables at import.
PARTS = {"jinja2": ("jinja2.nativetypes", "jinja2.sandbox"), "numpy": (), "pandas": (), "pendulum": (), "requests": ()}
# Variables that are set during the load so that libraries start no threads. pandas imports pyarrow, whose jemalloc
# starts a thread even if another memory pool is in use. `JE_ARROW_MALLOC_CONF` is jemalloc's MALLOC_CONF with the
# prefix of Arrow's build.
WITHOUT_THREADS = {"JE_ARROW_MALLOC_CONF": "background_thread:false"}
# Top-level packages that a warm Python loaded before the workspace was known, including dependencies.
loaded_ahead: set[str] = set()
# True in a fork of a warm Python.
forked_from_warm = False
# True if Airflow was loaded without importing the classes that its settings name.
is_loaded_too_early = False
# Airflow variables that are read on each use, or that Leoflow applies itself.
NOT_READ_AHEAD = ("AIRFLOW__API__BASE_URL", "AIRFLOW__CORE__DAGS_FOLDER", "AIRFLOW__CORE__PLUGINS_FOLDER")


def load_ahead(names: Iterable[str], load: Callable[[Iterable[str]], None]) -> tuple[str, str] | None:
    """Loads the libraries with `load`. Stops at the first library that starts a permanent thread, and returns its name
    and the reason; None if there is no such library."""
    before, original = set(sys.modules), {name: os.environ.get(name) for name in WITHOUT_THREADS}
    os.environ.update(WITHOUT_THREADS)
    try:
        for name in names:
            if name in PARTS:
                load((name, *PARTS[name]))
                remaining = end_threads()
                if remaining:
                    return name, f"it starts threads, which do not survive a fork: {', '.join(remaining)}"
    finally:
        # Forks get the original variables.
        for variable, value in original.items():
            os.environ.pop(variable)
            if value is not None:
                os.environ[variable] = value
    loaded_ahead.update(name.partition(".")[0] for name in set(sys.modules) - before)
    return None


def seed_numpy():
    """In a fork of a warm Python: reseeds numpy, so that forks do not share random numbers."""
    random = sys.modules.get("numpy.random")
    if random is not None:
        random.seed()


def threads():
    """Returns the kernel's names of all threads except the main one."""
    names = []
    for thread in os.listdir("/proc/self/task"):
        if int(thread) != os.getpid():
            try:
                with open(f"/proc/self/task/{thread}/comm", encoding="utf-8", errors="replace") as file:
                    names.append(file.read().strip())
            except (FileNotFoundError, ProcessLookupError):
                # The thread has ended meanwhile.
                pass
    return sorted(names)


def end_threads() -> list[str]:
    """Ends the threads of OpenBLAS, which numpy uses, by forking: its fork handler stops them in the parent, too. They
    restart on demand. Returns the names of the threads that remain."""
    if not threads():
        return []
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    return threads()


def restart(environment: dict[str, str], job: str, options: dict[str, Any]) -> None:
    """Executes a new Python in this process, with the original `environment`."""
    os.execve(sys.executable, [*sys.orig_argv[:-2], job, json.dumps(options)], environment)


def restart_if_too_late(environment: dict[str, str], job: str, options: dict[str, Any], restart: Callable[..., None] = restart) -> None:
    """In a fork of a warm Python, after the project's variables were set: if Airflow or a preloaded library has already
    read one of them, restarts with the original `environment`."""
    if not forked_from_warm:
        return
    names = dotenv.READ_AT_START
    if "numpy" in loaded_ahead:
        names += tuple(options.get("read_by_libraries", ()))
    if real_sdk.is_active():
        names += ("AIRFLOW__", "AIRFLOW_CONFIG")

    def read_early(variables):
        return {name: value for name, value in variables.items() if name.startswith(names) and name not in NOT_READ_AHEAD}

    if is_loaded_too_early or read_early(os.environ) != read_early(environment):
        restart(environment, job, options)


def in_use(is_workspace_file: Callable[[str], bool]) -> list[str]:
    """Returns the libraries of PARTS that this process has loaded, except modules of the workspace with such a name."""
    files = {name: getattr(sys.modules.get(name), "__file__", None) for name in PARTS}
    return [name for name, file in files.items() if file and not is_workspace_file(file)]
