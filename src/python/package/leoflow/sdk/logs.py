"""What Airflow's own loggers write, as lines of the task's log: level, logger, event and what is told with it. The time is
put before each line by whoever keeps the log."""

from __future__ import annotations

import inspect
import json
import linecache
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

# Known of every line of a try, or of no use in it.
LEFT_OUT = frozenset(
    "timestamp level event logger dag_id task_id run_id try_number map_index ti_id filename lineno loc "
    "exception error_detail stack dag_run_id ti".split()
)
FOLDS = ("::group::", "::endgroup::")


def to_errors(text: str) -> None:
    """Lines, to where errors go."""
    rest = text.encode("utf-8", "backslashreplace")
    while rest:
        rest = rest[os.write(2, rest):]


class Lines:
    """What the loggers take for a binary file: a line of JSON for each event. `put` takes them as people read them."""

    mode = "wb"

    def __init__(self, put: Callable[[str], None] = to_errors):
        self.put = put
        self.open = b""

    def write(self, data):
        data = data.encode("utf-8", "backslashreplace") if isinstance(data, str) else data
        *whole, self.open = (self.open + data).split(b"\n")
        text = "".join(f"{line}\n" for line in map(shown, whole) if line is not None)
        if text:
            self.put(text)
        return len(data)

    def flush(self):
        pass


# The variables that say how, as they were when it was done.
_configured_with = None


def configure(put: Callable[[str], None] = to_errors) -> None:
    """For this process and its forks. `put` is what takes the lines."""
    global _configured_with
    said = {name: value for name, value in os.environ.items() if name.startswith("AIRFLOW__LOGGING__")}
    if said == _configured_with:
        return
    _configured_with = said
    from airflow.sdk.log import configure_logging

    known = inspect.signature(configure_logging).parameters
    wanted = {"json_output": True, "enable_pretty_log": False, "output": Lines(put), "sending_to_supervisor": True}
    configure_logging(**{name: value for name, value in wanted.items() if name in known})


def shown(line: bytes) -> str | None:
    """One event in words; None for one that says nothing here."""
    if not line.strip():
        return None
    try:
        told = json.loads(line)
        event = told["event"]
    except (ValueError, KeyError, TypeError):
        return line.decode("utf-8", "backslashreplace")
    if str(event).startswith(FOLDS):
        return None
    more = "".join(f" {name}={value}" if isinstance(value, (int, float)) else f" {name}={value!r}"
                   for name, value in told.items() if name not in LEFT_OUT)
    head = f"[{str(told.get('level', 'info')).upper()}] {told.get('logger') or 'airflow'}: {event}{more}"
    errors = told.get("error_detail") or told.get("exception")
    return head if not errors else f"{head}\n{trace(errors)}"


def frames_of_users(frames):
    """Without those of the SDK itself, where there are others."""
    return [frame for frame in frames if "/airflow/sdk/" not in frame["filename"]] or frames


def trace(errors: Any) -> str:
    """A traceback, from its parts: the cause first, as Python has it."""
    if not isinstance(errors, list):
        return str(errors)
    parts = []
    for one in reversed(errors):
        lines = ["Traceback (most recent call last):"] if one.get("frames") else []
        for frame in frames_of_users(one.get("frames") or []):
            lines.append(f'  File "{frame["filename"]}", line {frame["lineno"]}, in {frame["name"]}')
            code = linecache.getline(frame["filename"], frame["lineno"]).strip()
            if code:
                lines.append(f"    {code}")
        value = one.get("exc_value")
        lines.append(f"{one.get('exc_type')}: {value}" if value else str(one.get("exc_type")))
        parts.append("\n".join(lines))
    return "\n\n".join(parts)
