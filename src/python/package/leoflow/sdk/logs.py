"""What Airflow's own loggers say, as events of the task's log. The keeper of the log puts the time before each."""

from __future__ import annotations

import inspect
import json
import linecache
import os

from leoflow.common import task_log

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

# Known of every line of a try, or of no use in it.
LEFT_OUT = frozenset(
    "timestamp level event logger dag_id task_id run_id try_number map_index ti_id exception error_detail dag_run_id ti".split()
)
FOLDS = ("::group::", "::endgroup::")


def to_errors(text: str) -> None:
    """Lines, to where errors go."""
    rest = text.encode("utf-8", "backslashreplace")
    while rest:
        rest = rest[os.write(2, rest):]


class Lines:
    """What the loggers take for a binary file: a line of JSON for each event."""

    mode = "wb"

    def __init__(self, take: Callable[[dict[str, Any]], None]):
        self.take = take
        self.open = b""

    def write(self, data):
        data = data.encode("utf-8", "backslashreplace") if isinstance(data, str) else data
        *whole, self.open = (self.open + data).split(b"\n")
        for record in map(record_of, whole):
            if record is not None:
                self.take(record)
        return len(data)

    def flush(self):
        pass


# The variables that say how, as they were when it was done.
_configured_with = None
# What takes the events: a fork of a warm Python has its own, and the loggers that were made before it.
_take = None


def configure(take: Callable[[dict[str, Any]], None] | None = None) -> None:
    """For this process and its forks. `take` takes the events; without one they go where errors go."""
    global _configured_with, _take
    _take = take or _take
    said = {name: value for name, value in os.environ.items() if name.startswith("AIRFLOW__LOGGING__")}
    if said == _configured_with:
        return
    _configured_with = said
    # A logging configuration of the project's is put in force when `airflow` is imported, as in Airflow's worker.
    from airflow.sdk.log import configure_logging

    known = inspect.signature(configure_logging).parameters
    wanted = {"json_output": True, "enable_pretty_log": False, "output": Lines(pass_on), "sending_to_supervisor": True}
    configure_logging(**{name: value for name, value in wanted.items() if name in known})


def pass_on(record):
    (_take or task_log.to_terminal)(record)


def record_of(line: bytes) -> dict[str, Any] | None:
    """One event, as Airflow's supervisor has it; None for one that says nothing here."""
    if not line.strip():
        return None
    try:
        told = json.loads(line)
        event = str(told["event"])
    except (ValueError, KeyError, TypeError):
        return {"level": "info", "logger": "airflow", "event": line.decode("utf-8", "backslashreplace")}
    if event.startswith(FOLDS):
        return None
    record = {"level": told.get("level") or "info", "logger": told.get("logger") or "airflow", "event": event,
              **{name: value for name, value in told.items() if name not in LEFT_OUT}}
    errors = told.get("error_detail") or told.get("exception")
    if isinstance(errors, list):
        record["error_detail"] = [detail(one) for one in errors]
    elif errors:
        record["event"] = f"{event}\n{errors}"
    return record


def detail(error):
    """Without the frames of the SDK itself, where there are others; each with its line of code."""
    frames = error.get("frames") or []
    frames = [frame for frame in frames if "/airflow/sdk/" not in frame["filename"]] or frames
    with_code = [{**frame, "line": linecache.getline(frame["filename"], frame["lineno"]).strip()} for frame in frames]
    return {**error, "frames": with_code}
