"""A zygote, or warm Python: a process that has loaded what every task and parse needs. It runs no user code and forks
for each task or parse.

Its owner sends one JSON datagram per request and receives `{"id", "pid"}` or `{"id", "error"}`. `warm_try.py` and
`warm_child.py` define what the forks do.
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
from leoflow.common.reports import PACKAGE, describe
from leoflow.entry import forks, libraries, warm_child, warm_try

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# Descriptors that the owner passes.
OWNER, PROGRAM = 3, 4
# Bytes of a datagram.
LARGEST_REQUEST = 1024 * 1024
# Descriptors passed with a request: those for the output and the result of a child.
MOST_DESCRIPTORS = 2
# Standard modules that most tasks import, and those that this package imports on first use.
STANDARD = (
    "base64", "concurrent.futures", "copy", "csv", "datetime", "decimal", "functools", "glob", "hashlib", "http.client",
    "inspect", "io", "itertools", "json", "linecache", "logging", "math", "os.path", "pathlib", "random", "re", "resource",
    "shutil", "socket", "stat", "string", "subprocess", "tempfile", "time", "traceback", "typing", "urllib.parse", "uuid", "zoneinfo",
)


def serve(owner: socket.socket, options: dict[str, Any]) -> None:
    """Serves requests until the owner closes the socket."""
    mark = forks.Mark()
    # Fails now if writing to its own memory is not allowed, without which nothing can be started.
    mark.write("_" * mark.length)
    with open("/proc/sys/kernel/random/boot_id", encoding="utf-8") as file:
        boot_id = file.read().strip()
    os.chdir(options["folder"])
    time.tzset()
    refuse_threads()
    # The kernel reaps keepers (the processes that supervise tries); their outcomes are in their folders.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    gc.collect()
    gc.disable()
    gc.freeze()
    # Output of imported modules must not end up in the output of forks.
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
    """Preloads the modules that forks use."""
    environment = dict(os.environ)
    # The folder of packages that DAG files expect is needed only here; a task adds it itself.
    support = [options["support"]] if "support" in options else []
    sys.path += support
    load((*STANDARD, *own_modules()))
    refuse_threads()
    left_out = libraries.load_ahead(options["preload"], load)
    if left_out:
        restart_without(*left_out, options, environment)
    sys.path[:] = [folder for folder in sys.path if folder not in support]


def refuse_threads():
    """Raises RuntimeError when this process has more than one thread."""
    libraries.end_threads()
    names = libraries.threads()
    if names:
        raise RuntimeError(f"a module started threads, which do not survive a fork: {', '.join(names)}")


def restart_without(name, reason, options, environment):
    """Re-executes the process without that library, because only exec ends its threads. The pid and the socket stay."""
    preload = [preloaded for preloaded in options["preload"] if preloaded != name]
    options = {**options, "preload": preload, "left_out": {**options.get("left_out", {}), name: reason}}
    os.set_inheritable(OWNER, True)
    os.execve(sys.executable, [*sys.orig_argv[:-1], json.dumps(options)], environment)


def load(names):
    for name in names:
        try:
            importlib.import_module(name)
        except Exception as error:
            sys.stderr.write(f"failed to preload {name}: {error!r}\n")


def own_modules():
    """Yields the modules of this package that a DAG file or a task may use. Preloads Airflow's SDK if that is in
    use."""
    if real_sdk.is_used():
        from leoflow.sdk import preload

        libraries.is_loaded_too_early = preload.preload_all()
        return
    for layer in ("common", "authoring", "running"):
        yield from modules_below(os.path.join(PACKAGE, "leoflow", layer), f"leoflow.{layer}")
    yield from (f"leoflow.entry.{name}" for name in ("task", "parse", "ask", "settings", "dotenv", "small_backend", "structure"))
    yield "airflow.sdk"


def modules_below(folder, package):
    """Yields the names of the modules in a folder of this package and in its subfolders."""
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if entry.name.startswith("_"):
            continue
        if entry.is_dir():
            yield from modules_below(entry.path, f"{package}.{entry.name}")
        elif entry.name.endswith(".py"):
            yield f"{package}.{entry.name[:-3]}"
