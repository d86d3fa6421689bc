"""What is said of an error: the user's own lines of its traceback, as text that can be kept."""

from __future__ import annotations

import os
import sys

from leoflow.common import masking
from leoflow.common.packages import missing_package

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# The folder of this package and of `airflow` beside it.
PACKAGE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def user_frame():
    """The innermost frame that is the user's code, or None."""
    frame = sys._getframe(1)
    while frame is not None:
        name = frame.f_code.co_filename
        if not is_ours(name):
            return frame
        frame = frame.f_back
    return None


def user_line() -> tuple[str, int]:
    frame = user_frame()
    return (frame.f_code.co_filename, frame.f_lineno) if frame else ("unknown", 0)


def explain(error: BaseException) -> str:
    """The traceback of the user's own code, as a text."""
    import traceback

    report = traceback.TracebackException.from_exception(error)
    seen = set()

    def trim(one):
        if one is None or id(one) in seen:
            return
        seen.add(id(one))
        one.stack[:] = [frame for frame in one.stack if not is_ours(frame.filename)]
        trim(one.__cause__)
        trim(one.__context__)

    trim(report)
    # Where nothing of it is the user's code, the words have to do.
    lines = report.format() if report.stack or report.__cause__ else report.format_exception_only()
    text = "".join(lines).rstrip()
    hint = missing_package(error)
    return f"{text}\n{hint}" if hint else text


def describe(error: BaseException) -> str:
    """In one line, without the secrets that were read."""
    if isinstance(error, SystemExit):
        return f"the task's code called sys.exit({error.code!r})"
    return masking.hide(f"{type(error).__name__}: {error}".rstrip(": "))[:1000]


# What a run of no date does not have, as in Airflow 3.
OF_THE_DATE = ("logical_date", "data_interval_start", "data_interval_end", "ds", "ds_nodash", "ts", "ts_nodash",
               "ts_nodash_with_tz", "prev_data_interval_start_success", "prev_data_interval_end_success")


def missing_date(error: BaseException) -> str | None:
    """What to say of an error that comes from a run without a logical date, or None."""
    text = str(error)
    if isinstance(error, KeyError) and error.args:
        name = error.args[0]
    elif "is undefined" in text or "missing" in text and "required" in text:
        name = next((name for name in OF_THE_DATE if f"'{name}'" in text), None)
    else:
        return None
    if name not in OF_THE_DATE:
        return None
    return (f"This run has no logical date, so there is no `{name}`, as in Airflow 3. Give it one with --logical-date, "
            "or use dag_run.run_after, which every run has.")


def clean(value: Any) -> Any:
    """The same with texts that are Unicode and can be kept: what cannot is shown as an escape."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")
    if isinstance(value, list):
        return [clean(one) for one in value]
    if isinstance(value, dict):
        return {clean(key): clean(one) for key, one in value.items()}
    return value


def is_ours(file: str) -> bool:
    return file.startswith((PACKAGE, "<frozen importlib"))
