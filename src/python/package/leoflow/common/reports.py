"""Error reports: tracebacks without the frames of this package, as text that can be stored."""

from __future__ import annotations

import os
import sys

from leoflow.common import masking
from leoflow.common.hints.error_hint import hint as error_hint

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# The folder of this package and of `airflow` beside it.
PACKAGE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def user_frame():
    """Returns the innermost frame of user code, or None."""
    frame = sys._getframe(1)
    while frame is not None:
        name = frame.f_code.co_filename
        if not is_ours(name):
            return frame
        frame = frame.f_back
    return None


def user_line() -> tuple[str, int]:
    """Returns the file and the line of the innermost frame of user code."""
    frame = user_frame()
    return (frame.f_code.co_filename, frame.f_lineno) if frame else ("unknown", 0)


def explain(error: BaseException) -> str:
    """Formats an error with its traceback, without the frames of this package, and a hint."""
    import traceback

    report = traceback.TracebackException.from_exception(error)
    seen = set()

    def trim(error_report):
        if error_report is None or id(error_report) in seen:
            return
        seen.add(id(error_report))
        error_report.stack[:] = [frame for frame in error_report.stack if not is_ours(frame.filename)]
        trim(error_report.__cause__)
        trim(error_report.__context__)

    trim(report)
    # Without a frame of user code, formats only the message.
    lines = report.format() if report.stack or report.__cause__ else report.format_exception_only()
    text = "".join(lines).rstrip()
    hint = error_hint(error)
    return f"{text}\n{hint}" if hint else text


def describe(error: BaseException) -> str:
    """Returns the error as one text of at most 1000 characters, without traceback, with secrets masked."""
    if isinstance(error, SystemExit):
        return f"the code called sys.exit({error.code!r})"
    return masking.hide(f"{type(error).__name__}: {error}".rstrip(": "))[:1000]


# Context keys that are missing in a run without a logical date, as in Airflow 3.
DATE_KEYS = ("logical_date", "data_interval_start", "data_interval_end", "ds", "ds_nodash", "ts", "ts_nodash",
               "ts_nodash_with_tz", "prev_data_interval_start_success", "prev_data_interval_end_success")


def missing_date(error: BaseException) -> str | None:
    """Returns a hint for an error caused by a missing logical date, or None."""
    text = str(error)
    if isinstance(error, KeyError) and error.args:
        key = error.args[0]
    elif "is undefined" in text or "missing" in text and "required" in text:
        key = next((key for key in DATE_KEYS if f"'{key}'" in text), None)
    else:
        return None
    if key not in DATE_KEYS:
        return None
    return (f"This run has no logical date, so there is no `{key}`, as in Airflow 3. Give it one with --logical-date, "
            "or use dag_run.run_after, which every run has.")


def clean(value: Any) -> Any:
    """Escapes the characters in a value's texts that PostgreSQL cannot store: lone surrogates and NUL."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")
    if isinstance(value, list):
        return [clean(item) for item in value]
    if isinstance(value, dict):
        return {clean(key): clean(item) for key, item in value.items()}
    return value


def is_ours(file: str) -> bool:
    return file.startswith((PACKAGE, "<frozen importlib"))
