"""Hints for errors of the user's code."""

from __future__ import annotations

import re

from leoflow.common.hints import airflow_2
from leoflow.common.hints.packages import imported_names, missing_package

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
        return removed_import(error) or misspelt(error) or missing_package(error)
    if isinstance(error, TypeError):
        argument = airflow_2.removed_argument(str(error))
        if argument:
            return argument
    return airflow_2.removed_context_key(error)


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
