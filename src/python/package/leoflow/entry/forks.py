"""Turns a fork of a warm Python (`zygote.py`) into an independent process."""

from __future__ import annotations

import _signal
import atexit
import ctypes
import gc
import os
import signal
import sys

from leoflow.common import plain_files, task_log
from leoflow.entry import libraries
from leoflow.running import loading

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

# Environment variable that marks the processes of a try or a child. In a warm Python, its value is as long as any mark.
MARK = "LEOFLOW_TASK"
# Options of prctl(2), from linux/prctl.h.
SET_PARENT_DEATH_SIGNAL, SET_CHILD_SUBREAPER = 1, 36

# A fork copies each page that it writes to, which takes some microseconds, and Python writes to every object that it
# uses. So forks use objects that were created before the fork, plain descriptors, and `_signal`, because `signal`
# creates enumeration members.
_prctl = ctypes.CDLL(None).prctl
_prctl.argtypes = [ctypes.c_int, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong]
# PyDLL keeps the GIL during the call; otherwise another thread could hold it in the child.
_fork = ctypes.PyDLL(None, use_errno=True).fork
set_handler, set_mask = _signal.signal, _signal.pthread_sigmask
DEFAULT, IGNORED = int(signal.SIG_DFL), int(signal.SIG_IGN)
BLOCK, SET_MASK = int(signal.SIG_BLOCK), int(signal.SIG_SETMASK)
SIGTERM, SIGKILL, SIGCHLD, SIGPIPE, SIGALRM = (
    int(number) for number in (signal.SIGTERM, signal.SIGKILL, signal.SIGCHLD, signal.SIGPIPE, signal.SIGALRM))
# Time limit for functions that a task has registered with `atexit`; that of OpenTelemetry takes up to 30 s.
EXIT_SECONDS = 60


def fork_for_exec() -> int:
    """Calls fork(2) without Python's fork hooks, which renew locks and random seeds. For a single-threaded child that
    runs only code of this package and soon forks again or calls exec."""
    pid = _fork()
    if pid < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return pid


def control(option, argument):
    """Calls prctl(2) with one argument."""
    _prctl(option, argument, 0, 0, 0)


def stat_fields() -> list[bytes]:
    """Returns the fields of /proc/self/stat from the third on, see proc(5)."""
    return plain_files.read("/proc/self/stat").rpartition(b")")[2].split()


class Mark:
    """The value of the mark in the memory that /proc/PID/environ shows. A fork inherits this memory; exec replaces
    it."""

    def __init__(self):
        start, end = (int(field) for field in stat_fields()[47:49])
        with open("/proc/self/mem", "rb") as memory:
            memory.seek(start)
            environment = memory.read(end - start)
        offset = environment.find(f"{MARK}=".encode())
        if offset < 0:
            raise RuntimeError("there is no mark in the environment")
        offset += len(MARK) + 1
        self.address = start + offset
        self.length = environment.index(b"\0", offset) - offset

    def write(self, text):
        if len(text) != self.length:
            raise ValueError(f"the mark has {self.length} bytes, not {len(text)}")
        with open("/proc/self/mem", "r+b", buffering=0) as memory:
            memory.seek(self.address)
            memory.write(text.encode())


def place_descriptors(descriptors):
    """Moves the descriptors to 0, 1, 2, … and closes all others."""
    # Copies the descriptors above the target numbers first, so that no dup2() overwrites one that is still needed.
    copies = [os.dup(descriptor) for descriptor in descriptors]
    while any(descriptor < len(descriptors) for descriptor in copies):
        copies = [os.dup(descriptor) for descriptor in copies]
    for number, descriptor in enumerate(copies):
        os.dup2(descriptor, number)
    # Closes only open descriptors: in some Pythons, os.closerange() makes a system call per possible number.
    for number in [int(name) for name in os.listdir("/proc/self/fd")]:
        if number >= len(descriptors):
            try:
                os.close(number)
            except OSError:
                # The descriptor of the directory listing itself.
                pass


def leave(code: int) -> NoReturn:
    """Ends a task's process as Airflow does: runs functions registered with `atexit`, but does not wait for threads."""
    # The result is written already. SIGALRM ends the process if one of the functions hangs.
    set_handler(SIGALRM, DEFAULT)
    signal.alarm(EXIT_SECONDS)
    try:
        atexit._run_exitfuncs()
    except BaseException:
        # `_run_exitfuncs` has printed the error.
        pass
    task_log.finish()
    os._exit(code)


def become(parent: int, mark: str, descriptors: list[int], work: Callable[[], object]) -> NoReturn:
    """In a fork: makes the process like a new one with the same modules loaded, runs `work`, and exits. The kernel
    kills the process when its parent exits. `descriptors` become 0, 1, 2, …."""
    code = 1
    try:
        control(SET_PARENT_DEATH_SIGNAL, SIGKILL)
        if os.getppid() != parent:
            os._exit(code)
        set_handler(SIGPIPE, IGNORED)
        set_handler(SIGCHLD, DEFAULT)
        set_mask(SET_MASK, ())
        place_descriptors(descriptors)
        os.environ[MARK] = mark
        # The exit functions of the warm Python must not run in this process.
        atexit._clear()
        loading.begin()
        gc.enable()
        libraries.forked_from_warm = True
        libraries.seed_numpy()
        work()
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except (OSError, ValueError):
                pass
        os._exit(code)
