"""Small files, read and written by plain descriptors: Python's own file objects cost a process that was forked several
times as much."""

from __future__ import annotations

import errno
import os
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

# What is read at once.
PART = 64 * 1024
# Errors of the system that pass: a full disk, no descriptor left, a device that fails for a moment.
TRANSIENT = frozenset((
    errno.EAGAIN, errno.EBUSY, errno.EDQUOT, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSPC, errno.EROFS,
    errno.ESTALE, errno.ETIMEDOUT,
))
FIRST_PAUSE, LONGEST_PAUSE = 0.02, 1.0
# What is set aside for a small result, in bytes.
RESERVE = 4096


def read(path: str) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        parts = []
        while part := os.read(descriptor, PART):
            parts.append(part)
        return b"".join(parts)
    finally:
        os.close(descriptor)


def until_it_passes(what: str, attempt: Callable[[], Any]) -> Any:
    """Does it again for as long as the system's error is one that passes."""
    pause = FIRST_PAUSE
    while True:
        try:
            return attempt()
        except OSError as error:
            if error.errno not in TRANSIENT:
                raise
            if pause == FIRST_PAUSE:
                sys.stderr.write(f"{what}: {error.strerror}; trying again until it passes\n")
            time.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE)


def reserve(path: str) -> None:
    """Sets aside room for a file that is written later, so that a full disk does not lose it. Without room there is no
    reserve."""
    try:
        write(path, b"\0" * RESERVE)
    except OSError:
        pass


def write_whole(path: str, reserved: str, content: bytes) -> None:
    """A file that is complete or absent. What fits takes the place of the reserve; other content waits for room."""
    if len(content) <= RESERVE:
        try:
            descriptor = os.open(reserved, os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.write(descriptor, content)
                os.ftruncate(descriptor, len(content))
            finally:
                os.close(descriptor)
            os.rename(reserved, path)
            return
        except OSError:
            # There is no reserve, or it cannot be used.
            pass
    partial = f"{path}.partial"

    def attempt():
        write(partial, content)
        os.rename(partial, path)

    until_it_passes("the result", attempt)


def mark(path: str) -> None:
    """An empty file that says that something began: the keeper counts the task's time from it. On a full disk there is
    none, and the keeper counts from its own start."""
    try:
        write(path, b"")
    except OSError:
        pass


def write(path: str, content: bytes, mode: int = 0o666) -> None:
    """A new file, or in place of what was in it; a new one has the mode, less what the umask takes."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_CREAT | os.O_TRUNC, mode)
    try:
        while content:
            content = content[os.write(descriptor, content):]
    finally:
        os.close(descriptor)
