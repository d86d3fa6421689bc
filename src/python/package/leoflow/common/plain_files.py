"""Reads and writes small files through file descriptors: in a forked process, Python's file objects take several times
as long."""

from __future__ import annotations

import errno
import os
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

# Number of bytes per read.
CHUNK_BYTES = 64 * 1024
# Transient system errors: a full disk, no free descriptor, a device error.
TRANSIENT = frozenset((
    errno.EAGAIN, errno.EBUSY, errno.EDQUOT, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSPC, errno.EROFS,
    errno.ESTALE, errno.ETIMEDOUT,
))
# Seconds between attempts; each pause is twice as long as the pause before.
FIRST_PAUSE, LONGEST_PAUSE = 0.02, 1.0
# Bytes reserved for a small result.
RESERVE_BYTES = 4096


def read(path: str) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return read_descriptor(descriptor)
    finally:
        os.close(descriptor)


def read_descriptor(descriptor: int) -> bytes:
    """Reads to the end of a file."""
    parts = []
    while part := os.read(descriptor, CHUNK_BYTES):
        parts.append(part)
    return b"".join(parts)


def retry_transient(label: str, attempt: Callable[[], Any]) -> Any:
    """Calls `attempt` until it does not fail with a transient error; returns its result. `label` names it in a
    message."""
    pause = FIRST_PAUSE
    while True:
        try:
            return attempt()
        except OSError as error:
            if error.errno not in TRANSIENT:
                raise
            if pause == FIRST_PAUSE:
                sys.stderr.write(f"{label}: {error.strerror}; retrying until it succeeds\n")
            time.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE)


def reserve(path: str) -> None:
    """Reserves disk space for a file that `write_whole` writes later, so that a disk that is full by then does not
    prevent it. Does nothing if the disk is already full."""
    try:
        write(path, b"\0" * RESERVE_BYTES)
    except OSError:
        pass


def write_whole(path: str, reserved: str, content: bytes) -> None:
    """Writes a file atomically. Content of up to RESERVE_BYTES overwrites the `reserved` file, which is then renamed to
    `path`; larger content waits for free disk space."""
    if len(content) <= RESERVE_BYTES:
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
            # The reserved file is missing or unusable.
            pass
    partial = f"{path}.partial"

    def attempt():
        write(partial, content)
        os.rename(partial, path)

    retry_transient("the result", attempt)


def write(path: str, content: bytes, mode: int = 0o666) -> None:
    """Creates or overwrites a file; a new one gets the mode, reduced by the umask."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_CREAT | os.O_TRUNC, mode)
    try:
        while content:
            content = content[os.write(descriptor, content):]
    finally:
        os.close(descriptor)
