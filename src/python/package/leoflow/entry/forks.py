"""Turns a fork of a warm Python (`zygote.py`) into an independent process."""

from __future__ import annotations

import _signal
import atexit
import ctypes
import errno
import functools
import gc
import os
import signal
import sys

from leoflow.common import plain_files
from leoflow.entry import libraries
from leoflow.running import loading

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

# Environment variable that marks the processes of a try or a child. In a warm Python, its value is as long as any mark.
MARK = "LEOFLOW_TASK"
# Options of prctl(2), from linux/prctl.h.
SET_PARENT_DEATH_SIGNAL, GET_TID_ADDRESS = 1, 40
# Flags of clone(2), from linux/sched.h, and its number and the position of `child_tid` by machine.
CLONE_PARENT, CLONE_CHILD_CLEARTID, CLONE_CHILD_SETTID = 0x8000, 0x200000, 0x1000000
CLONE = {"x86_64": (56, 2), "aarch64": (220, 3)}

# A fork copies each page that it writes to, which takes some microseconds, and Python writes to every object that it
# uses. So forks use objects that were created before the fork, plain descriptors, and `_signal`, because `signal`
# creates enumeration members.
_prctl = ctypes.CDLL(None).prctl
_prctl.argtypes = [ctypes.c_int, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong]
# PyDLL keeps the GIL during a call; otherwise another thread could hold it in the child.
_c = ctypes.PyDLL(None, use_errno=True)
_c.syscall.restype = ctypes.c_long
set_handler, set_mask = _signal.signal, _signal.pthread_sigmask
IGNORED = int(signal.SIG_IGN)
SET_MASK = int(signal.SIG_SETMASK)
SIGKILL, SIGCHLD, SIGPIPE = (int(number) for number in (signal.SIGKILL, signal.SIGCHLD, signal.SIGPIPE))


@functools.cache
def thread_id_address() -> int:
    """Returns where the C library keeps the main thread's id, which the kernel must renew in a child; 0 if unknown. glibc
    registers this address with the kernel, musl another one."""
    address = ctypes.c_long(0)
    if os.uname().machine not in CLONE or _prctl(GET_TID_ADDRESS, ctypes.addressof(address), 0, 0, 0) != 0:
        return 0
    is_thread_id = address.value and ctypes.c_int.from_address(address.value).value == os.getpid()
    return address.value if is_thread_id else 0


def fork_for_parent() -> int:
    """Like `os.fork()`, but the child is a child of this process's parent: it waits for the child, and the kernel tells it
    how the child ended. Must be called in a process with one thread."""
    address = thread_id_address()
    if not address:
        return fork_twice()
    number, position = CLONE[os.uname().machine]
    arguments = [0] * 4
    arguments[position] = address
    flags = CLONE_PARENT | CLONE_CHILD_CLEARTID | CLONE_CHILD_SETTID | SIGCHLD
    ctypes.pythonapi.PyOS_BeforeFork()
    pid = _c.syscall(*(ctypes.c_long(argument) for argument in (number, flags, *arguments)))
    if pid == 0:
        ctypes.pythonapi.PyOS_AfterFork_Child()
        return 0
    error = ctypes.get_errno()
    ctypes.pythonapi.PyOS_AfterFork_Parent()
    if pid < 0:
        raise OSError(error, os.strerror(error))
    return pid


def fork_twice() -> int:
    """Like `fork_for_parent`, for any C library: the process between ends at once, and this process's parent, which
    adopts orphans, becomes the child's parent."""
    reader, writer = os.pipe()
    between = os.fork()
    if between == 0:
        child = None
        try:
            child = os.fork()
            if child:
                os.write(writer, str(child).encode())
        finally:
            # Only the child may return.
            if child != 0:
                os._exit(0)
        os.close(reader)
        os.close(writer)
        return 0
    os.close(writer)
    answer = os.read(reader, 20)
    os.close(reader)
    os.waitpid(between, 0)
    if not answer:
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    return int(answer)


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


def begin():
    """Makes a fork of a warm Python like a new process."""
    set_handler(SIGPIPE, IGNORED)
    set_mask(SET_MASK, ())
    # The exit functions of the warm Python must not run in this process.
    atexit._clear()
    loading.begin()
    gc.enable()
    libraries.forked_from_warm = True


def become(parent: int, mark: str, descriptors: list[int], work: Callable[[], object], has_user_code: bool = False) -> NoReturn:
    """In a fork: makes the process like a new one with the same modules loaded, runs `work`, and exits. The kernel
    kills the process when its parent exits. `descriptors` become 0, 1, 2, …. `has_user_code` is true in a fork of a
    template."""
    code = 1
    try:
        _prctl(SET_PARENT_DEATH_SIGNAL, SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(code)
        place_descriptors(descriptors)
        os.environ[MARK] = mark
        if not has_user_code:
            begin()
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
