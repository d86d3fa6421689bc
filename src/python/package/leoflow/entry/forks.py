"""What every fork of a warm Python needs to be a process of its own."""

from __future__ import annotations

import _signal
import ctypes
import gc
import os
import signal
import sys

from leoflow.common import plain_files
from leoflow.entry import libraries

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

# What marks the processes of a try or of a child, in their environment; in a warm Python's it has room for any mark.
MARK = "LEOFLOW_TASK"
# linux/prctl.h
SET_PARENT_DEATH_SIGNAL, SET_CHILD_SUBREAPER = 1, 36

# What a fork writes to it has to copy, some microseconds for each page, and Python writes to whatever it looks at. So
# forks use what is made before them, plain descriptors, and `_signal`: `signal` makes enumerations of all it is given.
_prctl = ctypes.CDLL(None).prctl
_prctl.argtypes = [ctypes.c_int, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong]
# Without letting go of the interpreter, which a fork of another library's would find taken.
_fork = ctypes.PyDLL(None, use_errno=True).fork
set_handler, set_mask = _signal.signal, _signal.pthread_sigmask
DEFAULT, IGNORED = int(signal.SIG_DFL), int(signal.SIG_IGN)
BLOCK, SET_MASK = int(signal.SIG_BLOCK), int(signal.SIG_SETMASK)
SIGTERM, SIGKILL, SIGCHLD, SIGPIPE = (int(one) for one in (signal.SIGTERM, signal.SIGKILL, signal.SIGCHLD, signal.SIGPIPE))
# When Python looks for what is no longer used. What a DAG file makes is nearly all there to stay: looking as often as usual
# takes as long as making it.
USUALLY, WHILE_LOADING = gc.get_threshold(), (50_000, 20, 20)
_is_loading = False


def fork_for_exec() -> int:
    """fork(2) of a single thread that runs nothing of anybody else's, and forks again or executes something: no module is
    told that there was a fork, so that there are no new locks, and no new random numbers."""
    pid = _fork()
    if pid < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return pid


def control(option, argument):
    """prctl(2) with one argument."""
    _prctl(option, argument, 0, 0, 0)


def stat_fields() -> list[bytes]:
    """Of /proc/self/stat, from the third on: proc(5)."""
    return plain_files.read("/proc/self/stat").rpartition(b")")[2].split()


class Mark:
    """The value of the mark where /proc/PID/environ shows it, which a fork inherits and an exec replaces."""

    def __init__(self):
        start, end = (int(field) for field in stat_fields()[47:49])
        with open("/proc/self/mem", "rb") as memory:
            memory.seek(start)
            environment = memory.read(end - start)
        at = environment.find(f"{MARK}=".encode())
        if at < 0:
            raise RuntimeError("there is no mark in the environment")
        at += len(MARK) + 1
        self.at = start + at
        self.length = environment.index(b"\0", at) - at

    def write(self, text):
        if len(text) != self.length:
            raise ValueError(f"the mark has {self.length} bytes, not {len(text)}")
        with open("/proc/self/mem", "r+b", buffering=0) as memory:
            memory.seek(self.at)
            memory.write(text.encode())


def place(descriptors):
    """Puts each at its number, all above them closed. None of them may be in another's place."""
    high = [os.dup(descriptor) for descriptor in descriptors]
    while any(descriptor < len(descriptors) for descriptor in high):
        high = [os.dup(descriptor) for descriptor in high]
    for number, descriptor in enumerate(high):
        os.dup2(descriptor, number)
    # Not all numbers that there may be: some Pythons would close each with a call of its own.
    for number in [int(name) for name in os.listdir("/proc/self/fd")]:
        if number >= len(descriptors):
            try:
                os.close(number)
            except OSError:
                # It was the list's own.
                pass


def has_loaded() -> None:
    """From here on it is the user's own code that makes and drops objects: what is there stays."""
    global _is_loading
    if _is_loading:
        _is_loading = False
        gc.freeze()
        gc.set_threshold(*USUALLY)


def become(parent: int, mark: str, descriptors: list[int], work: Callable[[], object]) -> NoReturn:
    """In a fork: does the work as a process of its own would that has just imported the same modules, and ends with it.
    It ends with its parent too."""
    global _is_loading
    code = 1
    try:
        control(SET_PARENT_DEATH_SIGNAL, SIGKILL)
        if os.getppid() != parent:
            os._exit(code)
        set_handler(SIGPIPE, IGNORED)
        set_handler(SIGCHLD, DEFAULT)
        set_mask(SET_MASK, ())
        place(descriptors)
        os.environ[MARK] = mark
        _is_loading = True
        gc.set_threshold(*WHILE_LOADING)
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
