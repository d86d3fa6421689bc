"""The events of a task's log: what loggers and Leoflow say, each with its level, its logger and its traceback, on the way to
the keeper of the task or to a terminal."""

from __future__ import annotations

import io
import json
import os
import sys
import threading

from leoflow.common import masking
from leoflow.common.packages import missing_package
from leoflow.common.reports import clean, is_ours

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

# Begins a record in what a task writes to its output: as in src/protocol/task_log.rs.
RECORD_START = "\x1e"
# Airflow's loggers of a task, and of what a program prints that a task runs.
TASK, STDERR = "task", "task.stderr"
PROGRAM = "airflow.task.hooks.airflow.providers.standard.hooks.subprocess.SubprocessHook"
OWN = "leoflow"
# Of what these say, people see the text alone.
PRINTED = ("task.stdout", STDERR, PROGRAM)
# From which number on a logger's level has which name.
LEVELS = ((50, "critical"), (40, "error"), (30, "warning"), (20, "info"))
# Too chatty at info, as Airflow has it.
QUIET = ("httpx", "sqlalchemy.engine")
# As in Airflow: of more, those in the middle are left out.
MOST_FRAMES = 50
# A line without an end is cut.
LONGEST_LINE = 64 * 1024
NOT_SHOWN = frozenset(("level", "logger", "event", "error_detail", "filename", "lineno", "loc"))

# What takes records; None before the log has begun.
_take = None
_errors = None


def say(level: str, logger: str, event: str, **more: Any) -> None:
    """One event, from Leoflow's own code."""
    (_take or to_terminal)({"level": level, "logger": logger, "event": event, **more})


def show(error: BaseException, event: str = "Task failed with exception") -> None:
    """Says what went wrong, in Airflow's words."""
    if isinstance(error, SystemExit):
        say("error", TASK, "Task exited", exit_code=error.code)
        return
    say("error", TASK, event, error_detail=details(error))
    hint = missing_package(error)
    if hint:
        say("error", OWN, hint)


def to_terminal(record: dict[str, Any]) -> None:
    """What a program prints goes to the output, as what Python code prints; the rest to the errors."""
    stream = sys.stdout if record["logger"] == PROGRAM else sys.stderr
    stream.write(masking.hide(shown(record)) + "\n")
    stream.flush()


def to_keeper() -> Callable[[dict[str, Any]], None]:
    """What takes records in a task's process: they go where its output goes, in order with that. What Python code writes to
    `sys.stderr`, and its warnings, become records too."""
    global _take, _errors
    # The task may put something else into the place of its output.
    descriptor = os.dup(1)
    # A long record takes several writes, and threads would mix theirs. Reentrant: a signal handler may log within one.
    locks = [threading.RLock()]
    os.register_at_fork(after_in_child=lambda: locks.__setitem__(0, threading.RLock()))

    def take(record):
        rest = line(record).encode()
        with locks[0]:
            while rest:
                rest = rest[os.write(descriptor, rest):]

    _take, _errors = take, Errors(take)
    sys.stderr = io.TextIOWrapper(_errors, encoding="utf-8", errors="backslashreplace", write_through=True)
    take_warnings(take)
    return take


def finish() -> None:
    """Writes what has no line end yet, at the end of a task."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            # It is closed, or is something else by now.
            pass
    if _errors is not None:
        _errors.finish()


class Errors(io.RawIOBase):
    """`sys.stderr` of a task: a record for each line, in order with what is printed and logged. Programs that the task
    starts have the descriptor."""

    def __init__(self, take):
        self.take = take
        self.open = b""

    def writable(self):
        return True

    def fileno(self):
        return 2

    def write(self, data):
        data = bytes(data)
        # A return alone redraws a line; here that is another line.
        *whole, self.open = (self.open + data).replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        for text in whole:
            self.put(text)
        if len(self.open) > LONGEST_LINE:
            self.finish()
        return len(data)

    def put(self, text):
        self.take({"level": "error", "logger": STDERR, "event": text.decode("utf-8", "backslashreplace")})

    def finish(self):
        text, self.open = self.open, b""
        if text:
            self.put(text)


def take_warnings(take):
    import warnings

    usual = warnings.showwarning

    def show(message, category, filename, lineno, file=None, line=None):
        if file is not None:
            usual(message, category, filename, lineno, file, line)
        else:
            take({"level": "warning", "logger": "py.warnings", "event": str(message), "category": category.__name__,
                  "filename": filename, "lineno": lineno})

    warnings.showwarning = show


def begin_loggers(take: Callable[[dict[str, Any]], None]) -> None:
    """What Python's loggers say becomes records."""
    import logging

    class Handler(logging.Handler):
        def emit(self, record):
            try:
                take(of_logger(record))
            except Exception:
                self.handleError(record)

    root = logging.getLogger()
    root.addHandler(Handler())
    named = os.environ.get("AIRFLOW__LOGGING__LOGGING_LEVEL", "").upper()
    root.setLevel(named if named in ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL") else "INFO")
    for name in QUIET:
        logging.getLogger(name).setLevel("WARNING")


def of_logger(record):
    found = {"level": level_of(record.levelno), "logger": record.name, "event": record.getMessage(),
             "filename": record.filename if hasattr(record, "filename") else os.path.basename(record.pathname),
             "lineno": record.lineno}
    if record.exc_info and record.exc_info[1] is not None:
        found["error_detail"] = details(record.exc_info[1])
    if record.stack_info:
        found["stack"] = record.stack_info
    return found


def level_of(number):
    return next((name for least, name in LEVELS if number >= least), "debug")


def line(record: dict[str, Any]) -> str:
    """As the keeper reads it."""
    text = json.dumps(record, ensure_ascii=False, default=str)
    try:
        text.encode()
    except UnicodeEncodeError:
        text = json.dumps(clean(record), ensure_ascii=False, default=str)
    return f"{RECORD_START}{text}\n"


def hidden(record: Any) -> Any:
    """The same without the secrets that were read."""
    if isinstance(record, str):
        return masking.hide(record)
    if isinstance(record, list):
        return [hidden(one) for one in record]
    if isinstance(record, dict):
        return {name: hidden(one) for name, one in record.items()}
    return record


# --- errors


def details(error: BaseException) -> list[dict[str, Any]]:
    """An error and what it came from, as Airflow's logs have it. Without the frames of this package."""
    found, seen, is_cause = [], set(), False
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        found.append(one_detail(error, is_cause))
        is_cause = error.__cause__ is not None
        error = error.__cause__ if is_cause else None if error.__suppress_context__ else error.__context__
    return found


def one_detail(error, is_cause):
    import traceback

    frames = [
        {"filename": frame.filename, "lineno": frame.lineno, "name": frame.name, "line": frame.line}
        for frame in traceback.extract_tb(error.__traceback__) if not is_ours(frame.filename)
    ]
    if len(frames) > MOST_FRAMES:
        half = MOST_FRAMES // 2
        skipped = {"filename": "", "lineno": -1, "name": f"Skipped frames: {len(frames) - 2 * half}", "line": ""}
        frames = [*frames[:half], skipped, *frames[-half:]]
    try:
        value = str(error)
    except Exception:
        value = "<unprintable>"
    inside = getattr(error, "exceptions", None)
    is_group = isinstance(inside, tuple) and all(isinstance(one, BaseException) for one in inside)
    syntax = None
    if isinstance(error, SyntaxError):
        syntax = {"filename": error.filename or "", "lineno": error.lineno or 0, "offset": error.offset or 0,
                  "line": error.text or "", "msg": error.msg}
    return {
        "exc_type": type(error).__name__, "exc_value": value, "exc_notes": [str(one) for one in getattr(error, "__notes__", ())],
        "syntax_error": syntax, "is_cause": is_cause, "frames": frames, "is_group": is_group,
        "exceptions": [details(one) for one in inside] if is_group else [],
    }


# --- in words, as `Record::text` of src/protocol/task_log.rs has it


def shown(record: dict[str, Any]) -> str:
    event, errors = str(record["event"]), record.get("error_detail")
    if record["logger"] in PRINTED:
        head = event
    else:
        more = "".join(f" {name}={value}" if isinstance(value, (int, float)) else f" {name}={value!r}"
                       for name, value in record.items() if name not in NOT_SHOWN)
        head = f"[{record['level'].upper()}] {record['logger']}: {event}{more}"
    return f"{head}\n{trace(errors)}" if errors else head


def trace(errors: list[dict[str, Any]]) -> str:
    """A traceback, from its parts: the cause first, as Python has it."""
    return "\n\n".join(one_trace(one) for one in reversed(errors))


def one_trace(one):
    lines = ["Traceback (most recent call last):"] if one.get("frames") else []
    for frame in one.get("frames") or ():
        lines.append(f'  File "{frame["filename"]}", line {frame["lineno"]}, in {frame["name"]}')
        if frame.get("line"):
            lines.append(f"    {frame['line']}")
    value = one.get("exc_value")
    lines.append(f"{one.get('exc_type')}: {value}" if value else str(one.get("exc_type")))
    lines += one.get("exc_notes") or []
    lines += [trace(inside).replace("\n", "\n  ") for inside in one.get("exceptions") or ()]
    return "\n".join(lines)
