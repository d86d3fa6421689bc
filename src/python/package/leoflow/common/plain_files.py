"""Small files, read and written by plain descriptors: Python's own file objects cost a process that was forked several
times as much."""

from __future__ import annotations

import os

# What is read at once.
PART = 64 * 1024


def read(path: str) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        parts = []
        while part := os.read(descriptor, PART):
            parts.append(part)
        return b"".join(parts)
    finally:
        os.close(descriptor)


def write(path: str, content: bytes, mode: int = 0o666) -> None:
    """A new file, or in place of what was in it; a new one has the mode, less what the umask takes."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_CREAT | os.O_TRUNC, mode)
    try:
        while content:
            content = content[os.write(descriptor, content):]
    finally:
        os.close(descriptor)
