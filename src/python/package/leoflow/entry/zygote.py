"""A warm Python: it has what every task or every parse needs loaded, runs nothing of the user's, and forks for each.

Its owner sends one JSON datagram for each and gets `{"id", "pid"}` or `{"id", "error"}`; `warm_try.py` and `warm_child.py` tell
what the forks become.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import signal
import socket
import sys
import time

from leoflow.common import real_sdk
from leoflow.common.reports import describe
from leoflow.entry import forks, libraries, warm_child, warm_try

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# Where both sides of a fork find what the owner has passed.
OWNER, PROGRAM = 3, 4
LARGEST_REQUEST = 1024 * 1024
# Where the output and the result of a child go.
MOST_DESCRIPTORS = 2
# What most tasks import of Python's own, and what our own modules import when it is first used.
STANDARD = (
    "base64", "concurrent.futures", "copy", "csv", "datetime", "decimal", "functools", "glob", "hashlib", "http.client",
    "inspect", "io", "itertools", "json", "linecache", "logging", "math", "os.path", "pathlib", "random", "re", "resource",
    "shutil", "socket", "stat", "string", "subprocess", "tempfile", "time", "traceback", "typing", "urllib.parse", "uuid", "zoneinfo",
)


def serve(owner: socket.socket, options: dict[str, Any]) -> None:
    """Until the owner has gone."""
    mark = forks.Mark()
    # Where that is not allowed nothing can be started, and it is better known now.
    mark.write("_" * mark.length)
    with open("/proc/sys/kernel/random/boot_id", encoding="utf-8") as file:
        boot_id = file.read().strip()
    os.chdir(options["folder"])
    time.tzset()
    refuse_threads()
    # Keepers are nobody's to wait for: how they ended is in their folders.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    gc.collect()
    gc.disable()
    gc.freeze()
    # What a module has printed is nobody's task's.
    sys.stdout.flush()
    sys.stderr.flush()
    path = [folder for folder in sys.path if os.path.isdir(folder)]
    owner.send(json.dumps({"ready": True, "path": path, "left_out": options.get("left_out", {})}).encode())
    while True:
        text, descriptors, _, _ = socket.recv_fds(owner, LARGEST_REQUEST, MOST_DESCRIPTORS)
        if not text:
            return
        request = json.loads(text)
        try:
            if "job" in request:
                warm_child.start(request, mark, owner, descriptors)
            else:
                pid = warm_try.start(request, mark, boot_id, PROGRAM)
                owner.send(json.dumps({"id": request["id"], "pid": pid}).encode())
        except OSError as error:
            owner.send(json.dumps({"id": request["id"], "error": str(error), "errno": error.errno}).encode())
        finally:
            for descriptor in descriptors:
                os.close(descriptor)


def main(options: dict[str, Any]) -> None:
    owner = socket.socket(fileno=OWNER)
    os.set_inheritable(OWNER, False)
    try:
        begin(options)
        serve(owner, options)
    except Exception as error:
        owner.send(json.dumps({"error": describe(error)}).encode())
        raise


def begin(options):
    """Loads what forks use."""
    environment = dict(os.environ)
    # Where packages are that DAG files expect; a task adds them itself.
    support = [options["support"]] if "support" in options else []
    sys.path += support
    load((*STANDARD, *our_own()))
    refuse_threads()
    left_out = libraries.load_ahead(options["preload"], load)
    if left_out:
        begin_again_without(*left_out, options, environment)
    sys.path[:] = [folder for folder in sys.path if folder not in support]


def refuse_threads():
    libraries.end_threads()
    names = libraries.threads()
    if names:
        raise RuntimeError(f"a module has started threads, which no fork has: {', '.join(names)}")


def begin_again_without(name, reason, options, environment):
    """A thread that stays can be left only by the next program. That is the same process, and its owner waits on."""
    preload = [one for one in options["preload"] if one != name]
    options = {**options, "preload": preload, "left_out": {**options.get("left_out", {}), name: reason}}
    os.set_inheritable(OWNER, True)
    os.execve(sys.executable, [*sys.orig_argv[:-1], json.dumps(options)], environment)


def load(names):
    for name in names:
        try:
            importlib.import_module(name)
        except Exception as error:
            sys.stderr.write(f"{name} cannot be loaded ahead: {error!r}\n")


def our_own():
    """All that a DAG file or a task may use of this package, or of Airflow's own SDK where that is what they use."""
    if real_sdk.is_used():
        from leoflow.sdk import preload

        libraries.is_loaded_too_early = preload.everything()
        return
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    for room in ("common", "authoring", "running"):
        for file in sorted(os.listdir(os.path.join(root, room))):
            if file.endswith(".py") and not file.startswith("_"):
                yield f"leoflow.{room}.{file[:-3]}"
    yield from (f"leoflow.entry.{name}" for name in ("task", "parse", "ask", "settings", "dotenv", "small_side"))
    yield "airflow.sdk"
