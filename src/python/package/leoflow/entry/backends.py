"""Selects the package that parses and runs DAGs in this process: the small package or Airflow's SDK."""

from __future__ import annotations

from leoflow.common import real_sdk

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType


def current() -> ModuleType:
    """Returns a module with `dags_of`, `structures`, `plugin_problems`, `email_problem`, `load`, `begin_try`,
    `try_in_foreground`, `wait_for_trigger`, `begin_log`, `timetable_of` and `call_back`."""
    if real_sdk.is_active():
        from leoflow.sdk import backend
    else:
        from leoflow.entry import small_backend as backend
    return backend
