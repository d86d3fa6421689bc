"""Isolates the task that a warm Python runs with Airflow's SDK before it has a project (`entry/warm/warm_up.py`)."""

from __future__ import annotations

import contextlib
import sys

from leoflow.sdk import logs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType
    from typing import Any

MISSING = object()
# The module from which a task loads the macros of plugins; which one it is depends on Airflow's version.
PLUGINS = ("airflow.sdk.plugins_manager", "airflow.plugins_manager")


class NoListeners:
    """A listener manager without listeners."""

    def __getattr__(self, name):
        return self if name == "hook" else no_op


def no_op(*_: Any, **__: Any) -> None:
    """Replaces functions that must have no effect."""


@contextlib.contextmanager
def isolated() -> Iterator[None]:
    """While the task runs: loads no plugins, because they may read the settings of a project; keeps the title of the
    process and its log; and looks up no host name, which may take seconds. Then restores Airflow's modules."""
    import setproctitle
    from structlog.contextvars import clear_contextvars

    from airflow.sdk.execution_time import task_runner

    with contextlib.ExitStack() as replacements:
        replacements.callback(clear_contextvars)
        for module, name, value in (
            (task_runner, "SUPERVISOR_COMMS", None), (task_runner, "get_listener_manager", NoListeners),
            (task_runner, "get_hostname", lambda: "localhost"), (setproctitle, "setproctitle", no_op), (logs, "_sink", no_op),
            *((sys.modules[name], "integrate_macros_plugins", no_op) for name in PLUGINS if name in sys.modules),
        ):
            replacements.enter_context(replaced(module, name, value))
        yield


@contextlib.contextmanager
def replaced(module: ModuleType, name: str, value: Any) -> Iterator[None]:
    """Replaces a variable of a module."""
    original = getattr(module, name, MISSING)
    setattr(module, name, value)
    try:
        yield
    finally:
        if original is MISSING:
            delattr(module, name)
        else:
            setattr(module, name, original)
