"""Writes the events of a task's log, each with level, logger and traceback: to the task's keeper (the process that
writes its log file) or to a terminal."""

from __future__ import annotations

import io
import json
import os
import sys
import threading

from leoflow.common import masking
from leoflow.common.hints.error_hint import hint as error_hint
from leoflow.common.reports import clean, is_ours

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

# Starts a record in the output of a task, as in src/base/protocol/task_log.rs.
RECORD_START = "\x1e"
# Airflow's logger names for a task, for its stderr, and for the output of programs that it runs.
TASK, STDERR = "task", "task.stderr"
PROGRAM = "airflow.task.hooks.airflow.providers.standard.hooks.subprocess.SubprocessHook"
# Logger name for messages of Leoflow itself.
OWN = "leoflow"
# Loggers whose events are displayed without level, logger and fields.
PRINTED = ("task.stdout", STDERR, PROGRAM)
# The lowest number of each level, in Python's logging.
LEVELS = ((50, "critical"), (40, "error"), (30, "warning"), (20, "info"))
# Loggers of which Airflow shows only warnings and errors.
QUIET = ("httpx", "sqlalchemy.engine")
# Maximum number of frames in a traceback, as in Airflow; the middle of a longer traceback is omitted.
MAX_FRAMES = 50
# Longest line of stderr, bytes; a longer line is split.
LONGEST_LINE = 64 * 1024
# Fields that `format_record` omits or formats in a special way.
NOT_SHOWN = frozenset(("level", "logger", "event", "error_detail", "filename", "lineno", "loc"))

# Function that receives records; None before the log is set up.
_sink = None
# The writer behind `sys.stderr`, once the log is set up.
_stderr = None


def log_event(level: str, logger: str, event: str, **fields: Any) -> None:
    """Logs an event of Leoflow's own code."""
    (_sink or to_terminal)({"level": level, "logger": logger, "event": event, **fields})


def log_error(error: BaseException, event: str = "Task failed with exception") -> None:
    """Logs an error as Airflow does, and a hint."""
    if isinstance(error, SystemExit):
        log_event("error", TASK, "Task exited", exit_code=error.code)
        return
    log_event("error", TASK, event, error_detail=error_details(error))
    hint = error_hint(error)
    if hint:
        log_event("error", OWN, hint)


def to_terminal(record: dict[str, Any]) -> None:
    """Writes records with the output of programs to stdout, and other records to stderr."""
    stream = sys.stdout if record["logger"] == PROGRAM else sys.stderr
    stream.write(masking.hide(format_record(record)) + "\n")
    stream.flush()


def to_keeper() -> Callable[[dict[str, Any]], None]:
    """Sets up the log of a task's process; returns the function that writes a record to its stdout, in order with other
    output. Text written to `sys.stderr` and Python's warnings become records, too."""
    global _sink, _stderr, _descriptor
    # The task may redirect its stdout.
    descriptor = _descriptor = os.dup(1)
    # A long record takes several writes, which must not mix with those of other threads. The lock is reentrant, because
    # a signal handler may log during a write.
    locks = [threading.RLock()]
    os.register_at_fork(after_in_child=lambda: locks.__setitem__(0, threading.RLock()))

    def sink(record):
        unwritten = line(record).encode()
        with locks[0]:
            while unwritten:
                unwritten = unwritten[os.write(descriptor, unwritten):]

    _sink, _stderr = sink, StderrWriter(sink)
    sys.stderr = io.TextIOWrapper(_stderr, encoding="utf-8", errors="backslashreplace", write_through=True)
    redirect_warnings(sink)
    return sink


def reconnect() -> None:
    """In a fork of a process that has called `to_keeper`: writes records to the present stdout."""
    os.dup2(1, _descriptor, inheritable=False)


def finish() -> None:
    """Writes unfinished lines, at the end of a task."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (AttributeError, OSError, ValueError):
            # The stream is closed or replaced, maybe by None.
            pass
    if _stderr is not None:
        _stderr.finish()


class StderrWriter(io.RawIOBase):
    """`sys.stderr` of a task: writes a record for each line, in order with other output. Programs that the task starts
    write to descriptor 2 directly."""

    def __init__(self, sink):
        self.sink = sink
        # An incomplete last line.
        self.open = b""

    def writable(self):
        return True

    def fileno(self):
        return 2

    def write(self, data):
        data = bytes(data)
        # A carriage return alone, which rewrites a line on a terminal, ends a line here.
        *lines, self.open = (self.open + data).replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        for text in lines:
            self.put(text)
        if len(self.open) > LONGEST_LINE:
            self.finish()
        return len(data)

    def put(self, text):
        self.sink({"level": "error", "logger": STDERR, "event": text.decode("utf-8", "backslashreplace")})

    def finish(self):
        text, self.open = self.open, b""
        if text:
            self.put(text)


def redirect_warnings(sink):
    import warnings

    original = warnings.showwarning

    def show(message, category, filename, lineno, file=None, line=None):
        if file is not None:
            original(message, category, filename, lineno, file, line)
        else:
            sink({"level": "warning", "logger": "py.warnings", "event": str(message), "category": category.__name__,
                  "filename": filename, "lineno": lineno})

    warnings.showwarning = show


def begin_loggers(sink: Callable[[dict[str, Any]], None]) -> None:
    """Turns events of Python's loggers into records."""
    import logging

    class Handler(logging.Handler):
        def emit(self, record):
            try:
                sink(logger_record(record))
            except Exception:
                self.handleError(record)

    root = logging.getLogger()
    root.addHandler(Handler())
    named = os.environ.get("AIRFLOW__LOGGING__LOGGING_LEVEL", "").upper()
    root.setLevel(named if named in ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL") else "INFO")
    for name in QUIET:
        logging.getLogger(name).setLevel("WARNING")


def logger_record(record):
    fields = {"level": level_of(record.levelno), "logger": record.name, "event": record.getMessage(),
              "filename": record.filename if hasattr(record, "filename") else os.path.basename(record.pathname),
              "lineno": record.lineno}
    if record.exc_info and record.exc_info[1] is not None:
        fields["error_detail"] = error_details(record.exc_info[1])
    if record.stack_info:
        fields["stack"] = record.stack_info
    return fields


def level_of(number):
    return next((name for lowest, name in LEVELS if number >= lowest), "debug")


def line(record: dict[str, Any]) -> str:
    """Returns the record as one line for the keeper."""
    text = json.dumps(record, ensure_ascii=False, default=str)
    try:
        text.encode()
    except UnicodeEncodeError:
        text = json.dumps(clean(record), ensure_ascii=False, default=str)
    return f"{RECORD_START}{text}\n"


def masked(record: Any) -> Any:
    """Masks the secrets in a record."""
    if isinstance(record, str):
        return masking.hide(record)
    if isinstance(record, list):
        return [masked(item) for item in record]
    if isinstance(record, dict):
        return {name: masked(item) for name, item in record.items()}
    return record


# --- errors


def error_details(error: BaseException) -> list[dict[str, Any]]:
    """Returns an error and its causes in the format of Airflow's logs, the error first, without the frames of this
    package."""
    details, seen, is_cause = [], set(), False
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        details.append(error_detail(error, is_cause))
        is_cause = error.__cause__ is not None
        error = error.__cause__ if is_cause else None if error.__suppress_context__ else error.__context__
    return details


def error_detail(error, is_cause):
    import traceback

    frames = [
        {"filename": frame.filename, "lineno": frame.lineno, "name": frame.name, "line": frame.line}
        for frame in traceback.extract_tb(error.__traceback__) if not is_ours(frame.filename)
    ]
    if len(frames) > MAX_FRAMES:
        half = MAX_FRAMES // 2
        skipped = {"filename": "", "lineno": -1, "name": f"Skipped frames: {len(frames) - 2 * half}", "line": ""}
        frames = [*frames[:half], skipped, *frames[-half:]]
    try:
        value = str(error)
    except Exception:
        value = "<unprintable>"
    members = getattr(error, "exceptions", None)
    is_group = isinstance(members, tuple) and all(isinstance(member, BaseException) for member in members)
    syntax = None
    if isinstance(error, SyntaxError):
        syntax = {"filename": error.filename or "", "lineno": error.lineno or 0, "offset": error.offset or 0,
                  "line": error.text or "", "msg": error.msg}
    return {
        "exc_type": type(error).__name__, "exc_value": value, "exc_notes": [str(note) for note in getattr(error, "__notes__", ())],
        "syntax_error": syntax, "is_cause": is_cause, "frames": frames, "is_group": is_group,
        "exceptions": [error_details(member) for member in members] if is_group else [],
    }


# --- formatting as text, like `Record::text` in src/base/protocol/task_log.rs


def format_record(record: dict[str, Any]) -> str:
    event, errors = str(record["event"]), record.get("error_detail")
    if record["logger"] in PRINTED:
        head = event
    else:
        fields = "".join(f" {name}={value}" if isinstance(value, (int, float)) else f" {name}={value!r}"
                         for name, value in record.items() if name not in NOT_SHOWN)
        head = f"[{record['level'].upper()}] {record['logger']}: {event}{fields}"
    return f"{head}\n{format_traceback(errors)}" if errors else head


def format_traceback(errors: list[dict[str, Any]]) -> str:
    """Formats a traceback; the cause comes first, as in Python."""
    return "\n\n".join(format_error(error) for error in reversed(errors))


def format_error(error):
    lines = ["Traceback (most recent call last):"] if error.get("frames") else []
    for frame in error.get("frames") or ():
        lines.append(f'  File "{frame["filename"]}", line {frame["lineno"]}, in {frame["name"]}')
        if frame.get("line"):
            lines.append(f"    {frame['line']}")
    value = error.get("exc_value")
    lines.append(f"{error.get('exc_type')}: {value}" if value else str(error.get("exc_type")))
    lines += error.get("exc_notes") or []
    lines += [format_traceback(member).replace("\n", "\n  ") for member in error.get("exceptions") or ()]
    return "\n".join(lines)
