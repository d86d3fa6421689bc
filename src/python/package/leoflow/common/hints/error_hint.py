"""Hints for errors of the user's code."""

from __future__ import annotations

import re

from leoflow.common.hints import airflow_2, image_paths, own_modules
from leoflow.common.hints.commands import command
from leoflow.common.hints.packages import imported_names, missing_package

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

# In the process of a task: returns the `dag_id` and the `run_id` of its run if only the newest version of the DAG has a
# package, else None.
find_newer_package: Callable[[str], dict[str, Any] | None] | None = None
CANNOT_IMPORT = re.compile(r"cannot import name '(\w+)' from '([\w.]+)'")


def hint(error: BaseException) -> str | None:
    """Returns a text that explains how to fix an error, or None. Also looks at the causes of the error."""
    seen: list[BaseException] = []
    while error is not None and error not in seen:
        found = direct_hint(error)
        if found:
            return found
        seen.append(error)
        error = error.__cause__
    return None


def direct_hint(error):
    if isinstance(error, ImportError) and error.name:
        return removed_import(error) or misspelt(error) or own_modules.hidden(error) or missing_module(error)
    if isinstance(error, AttributeError) and (found := own_modules.hidden(error)):
        return found
    if isinstance(error, TypeError):
        argument = airflow_2.removed_argument(str(error))
        if argument:
            return argument
    return image_paths.missing_file(error) or airflow_2.removed_context_key(error)


def missing_module(error):
    missing = missing_package(error)
    if missing is None:
        return None
    name, package, text = missing
    return package and in_newer_version(name, package) or text


def in_newer_version(name, package):
    """Returns a hint if only the newest version of the running task's DAG has the package."""
    import shlex

    newer = find_newer_package(package) if find_newer_package else None
    if newer is None:
        return None
    dag_id, run_id = shlex.quote(newer["dag_id"]), shlex.quote(newer["run_id"])
    rerun = command(f"runs clear {dag_id} {run_id} --only-failed --run-on-latest-version")
    return (f"{name} is in the newest version of {newer['dag_id']}, but this run keeps the version that it began with. "
            f"Rerun it: {rerun}")


def removed_import(error):
    if error.name.partition(".")[0] != "airflow":
        return None
    match = CANNOT_IMPORT.search(str(error))
    names = [f"{match[2]}.{match[1]}"] if match else imported_names(error)
    return airflow_2.removed_import(names)


def misspelt(error):
    """Suggests the most similar name in an Airflow module."""
    import difflib
    import sys

    match = CANNOT_IMPORT.search(str(error))
    if not match or match[2].partition(".")[0] != "airflow":
        return None
    known = getattr(sys.modules.get(match[2]), "__all__", ())
    similar = difflib.get_close_matches(match[1], known, 1)
    return f"{match[2]} has no {match[1]}; did you mean {similar[0]}?" if similar else None
