"""Converts the events of Airflow's loggers to records of the task's log. The keeper adds the times."""

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

# Fields that are the same for the whole try, are converted separately, or are not displayed.
LEFT_OUT = frozenset(
    "timestamp level event logger dag_id task_id run_id try_number map_index ti_id exception error_detail dag_run_id ti".split()
)
# Lines that fold a log in Airflow's web UI.
FOLDS = ("::group::", "::endgroup::")


def to_errors(text: str) -> None:
    """Writes lines to stderr."""
    unwritten = text.encode("utf-8", "backslashreplace")
    while unwritten:
        unwritten = unwritten[os.write(2, unwritten):]


class Lines:
    """A binary file for the loggers, which write one line of JSON per event."""

    mode = "wb"

    def __init__(self, sink: Callable[[dict[str, Any]], None]):
        self.sink = sink
        # An incomplete last line.
        self.open = b""

    def write(self, data):
        data = data.encode("utf-8", "backslashreplace") if isinstance(data, str) else data
        *lines, self.open = (self.open + data).split(b"\n")
        for record in map(record_of, lines):
            if record is not None:
                self.sink(record)
        return len(data)

    def flush(self):
        pass


# The logging variables with which logging was last configured.
_configured_with = None
# Function that receives the records. A fork of a warm Python sets its own; loggers created before the fork use it, too.
_sink = None


def configure(sink: Callable[[dict[str, Any]], None] | None = None) -> None:
    """Configures logging for this process and its forks. `sink` receives the records; without `sink`, the earlier sink
    or the terminal does."""
    global _configured_with, _sink
    _sink = sink or _sink
    variables = {name: value for name, value in os.environ.items() if name.startswith("AIRFLOW__LOGGING__")}
    if variables == _configured_with:
        return
    _configured_with = variables
    # The import of `airflow` applies a logging configuration of the project, as in Airflow's worker.
    from airflow.sdk.log import configure_logging

    known = inspect.signature(configure_logging).parameters
    arguments = {"json_output": True, "enable_pretty_log": False, "output": Lines(send_to_sink), "sending_to_supervisor": True}
    configure_logging(**{name: value for name, value in arguments.items() if name in known})


def forget() -> None:
    """Makes the next `configure` configure again, after another configuration."""
    global _configured_with
    _configured_with = None


def send_to_sink(record):
    (_sink or task_log.to_terminal)(record)


def record_of(line: bytes) -> dict[str, Any] | None:
    """Converts a line like Airflow's supervisor; returns None for a line that is not displayed."""
    if not line.strip():
        return None
    try:
        entry = json.loads(line)
        event = str(entry["event"])
    except (ValueError, KeyError, TypeError):
        return {"level": "info", "logger": "airflow", "event": line.decode("utf-8", "backslashreplace")}
    if event.startswith(FOLDS):
        return None
    record = {"level": entry.get("level") or "info", "logger": entry.get("logger") or "airflow", "event": event,
              **{name: value for name, value in entry.items() if name not in LEFT_OUT}}
    errors = entry.get("error_detail") or entry.get("exception")
    if isinstance(errors, list):
        record["error_detail"] = [detail(error) for error in errors]
    elif errors:
        record["event"] = f"{event}\n{errors}"
    return record


def detail(error):
    """Removes the SDK's own frames, unless the error has no others, and adds the line of code to each frame."""
    frames = error.get("frames") or []
    frames = [frame for frame in frames if "/airflow/sdk/" not in frame["filename"]] or frames
    with_code = [{**frame, "line": linecache.getline(frame["filename"], frame["lineno"]).strip()} for frame in frames]
    return {**error, "frames": with_code}
