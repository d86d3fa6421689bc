"""What every fork of a warm Python needs to be a process of its own."""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

# What marks the processes of a try or of a child, in their environment; in a warm Python's it has room for any mark.
MARK = "LEOFLOW_TASK"
# linux/prctl.h
SET_PARENT_DEATH_SIGNAL, SET_CHILD_SUBREAPER = 1, 36

_libc = ctypes.CDLL(None, use_errno=True)


def control(option, argument):
    """prctl(2) with one argument."""
    _libc.prctl(option, argument, 0, 0, 0)


def stat_fields():
    """Of /proc/self/stat, from the third on: proc(5)."""
    with open("/proc/self/stat", encoding="utf-8") as file:
        return file.read().rpartition(")")[2].split()


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


def become(parent: int, mark: str, descriptors: list[int], work: Callable[[], object]) -> NoReturn:
    """In a fork: does the work as a process of its own would that has just imported the same modules, and ends with it.
    It ends with its parent too."""
    code = 1
    try:
        control(SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(code)
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, set())
        place(descriptors)
        os.environ[MARK] = mark
        gc.enable()
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
