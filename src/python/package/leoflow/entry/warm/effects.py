"""Watches what a DAG file does outside of its process while it is imported: what it reads is noted, and what it changes or
starts is refused before it happens."""

from __future__ import annotations

import os
import sys
import sysconfig

from leoflow.common.reports import PACKAGE
from leoflow.entry import reads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# Audit events by prefix: other processes, the network, and changes of files.
# <https://docs.python.org/3/library/audit_events.html>
REFUSED = (
    "os.chmod", "os.chown", "os.exec", "os.fork", "os.link", "os.mkdir", "os.posix_spawn", "os.remove", "os.rename", "os.rmdir",
    "os.spawn", "os.symlink", "os.system", "os.truncate", "os.utime", "pty.spawn", "shutil.", "socket.bind", "socket.connect",
    "socket.getaddrinfo", "socket.gethostby", "sqlite3.connect", "subprocess.Popen", "tempfile.",
)
# Folders of installed packages, and of the kernel.
UNCHANGED = tuple(
    os.path.join(os.path.realpath(folder), "") for folder in {
        sys.prefix, sys.base_prefix, PACKAGE, "/proc", "/dev", "/sys", *sysconfig.get_paths().values()})
# Maximum number of files and folders that a file may read.
MOST = 64


class Refused(BaseException):
    """Why tries must run a DAG file themselves. Not an Exception, so that the file does not catch it."""


class Effects:
    """The effects of an import, between `begin` and `end`: an audit hook cannot be removed."""

    def __init__(self):
        # What was read: the state of a file or folder at the first time, by path.
        self.read = {}
        self.refusal = None
        self.is_active = False

    def begin(self) -> None:
        self.is_active = True
        sys.addaudithook(self.hook)

    def end(self) -> None:
        """Raises Refused if an effect was refused."""
        self.is_active = False
        if self.refusal:
            raise Refused(self.refusal)

    def hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.is_active or event in ("compile", "exec", "import", "object.__getattr__", "sys._getframe"):
            return
        if event == "open":
            path, mode, _ = arguments
            if reads.is_read(arguments) and "+" not in (mode or ""):
                self.note(path)
            elif isinstance(path, (str, bytes)) and not is_compiled(path) and not is_unchanged(path):
                self.refuse("it writes files")
        elif event in ("os.listdir", "os.scandir"):
            if sys._getframe(1).f_globals.get("__name__") != "importlib._bootstrap_external":
                self.note(arguments[0])
        elif event.startswith(REFUSED) and not (event in ("os.mkdir", "os.rename") and is_compiled(arguments[0])):
            self.refuse(f"it does more than to define DAGs: {event}")

    def refuse(self, reason):
        self.refusal = self.refusal or reason
        raise Refused(reason)

    def note(self, path):
        """Notes a file or folder that was read."""
        path = os.path.abspath(os.fsdecode(path)) if isinstance(path, (str, bytes)) else os.getcwd()
        if path in self.read or is_compiled(path) or is_unchanged(path):
            return
        if len(self.read) >= MOST:
            self.refuse("it reads many files")
        self.read[path] = state_of(path)


def state_of(path: str) -> tuple[int, int, int] | None:
    """Returns what changes with a file or folder; None if it does not exist."""
    try:
        stat = os.stat(path)
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size, stat.st_ino


def is_unchanged(path: str | bytes) -> bool:
    return os.path.realpath(os.fsdecode(path)).startswith(UNCHANGED)


def is_compiled(path):
    """True for a compiled module, which Python writes, and for its folder."""
    path = os.path.abspath(os.fsdecode(path))
    return "__pycache__" in path or bool(sys.pycache_prefix) and path.startswith(sys.pycache_prefix)
