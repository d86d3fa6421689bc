"""A zygote, or warm Python: a process that has loaded the modules that every task and parse needs, and forks a process for
each task or parse. It runs no user code; its fork that does, a template, serves requests in the same way.

Its owner, which is its parent, sends one JSON datagram per request and receives `{"id", "pid"}` or `{"id", "error"}`. The
forks run `forked.py`.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import select
import socket
import sys
import time

from leoflow.common import real_sdk
from leoflow.common.reports import PACKAGE, describe
from leoflow.entry import forks, libraries
from leoflow.entry.warm import forked

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any

    from leoflow.entry.warm.template import Template

# Descriptor of the socket to the owner.
OWNER = 3
# Size limit of a request, bytes.
LARGEST_REQUEST = 1024 * 1024
# Number of descriptors in a request.
DESCRIPTORS = 4
# Standard modules that most tasks import, and those that this package imports on first use.
STANDARD = (
    "base64", "concurrent.futures", "copy", "csv", "datetime", "decimal", "functools", "glob", "hashlib", "http.client",
    "inspect", "io", "itertools", "json", "linecache", "logging", "math", "os.path", "pathlib", "random", "re", "resource",
    "shutil", "socket", "stat", "string", "subprocess", "tempfile", "time", "traceback", "typing", "urllib.parse", "uuid", "zoneinfo",
)
# Modules of every task. With them, a warm Python is ready after half of the time that it takes to load all.
FIRST = (
    "copy", "leoflow.authoring.loggers", "leoflow.entry.task", "leoflow.entry.small_backend", "leoflow.entry.warm.template",
    "leoflow.entry.warm.warm_up", "leoflow.running.context", "leoflow.running.task_api", "leoflow.running.task_try",
    "leoflow.running.xcoms", "airflow.sdk",
)


def serve(owner: socket.socket, jobs: dict[str, forked.Run], options: dict[str, Any], later: Iterable[str] = (),
          template: Template | None = None) -> None:
    """Serves requests for these jobs until the owner closes the socket. Meanwhile loads the modules named by `later`."""
    mark = forks.Mark()
    # Fails at once if this process may not write to its own memory, because no fork could then set its mark.
    mark.write("_" * mark.length)
    refuse_threads()
    gc.freeze()
    # Otherwise the output of imported modules would become output of the forks.
    sys.stdout.flush()
    sys.stderr.flush()
    # A template need not end when a task writes into a folder of the workspace.
    path = [folder for folder in sys.path if os.path.isdir(folder) and not (template and template.workspace.owns(folder))]
    owner.send(json.dumps({"ready": True, "path": path, "left_out": options.get("left_out", {})}).encode())
    later = iter(later)
    while True:
        while later is not None and not select.select([owner], [], [], 0)[0]:
            name = next(later, None)
            if name is None:
                later = None
                gc.collect()
                gc.freeze()
            else:
                load((name,))
        text, descriptors, _, _ = socket.recv_fds(owner, LARGEST_REQUEST, DESCRIPTORS)
        if not text:
            return
        request = json.loads(text)
        try:
            if template is not None and not template.is_current():
                raise OSError("a file that the DAG file reads has changed")
            pid = forked.start(request, mark, descriptors, jobs[request["job"]], template is not None)
            owner.send(json.dumps({"id": request["id"], "pid": pid}).encode())
        except OSError as error:
            owner.send(json.dumps({"id": request["id"], "error": str(error), "errno": error.errno}).encode())
        finally:
            for descriptor in descriptors:
                os.close(descriptor)


def run_task(options):
    from leoflow.entry.task import main

    main(options)


def run_parse(options):
    from leoflow.entry.parse import main

    main(options)


def run_ask(options):
    from leoflow.entry.ask import main

    main(options)


def become_template(options):
    from leoflow.entry.warm.template import Refused, Template

    owner = socket.socket(fileno=OWNER)
    os.set_inheritable(OWNER, False)
    try:
        template = Template(options)
    except Refused as refused:
        owner.send(json.dumps({"error": str(refused), "errno": getattr(refused, "errno", None)}).encode())
    else:
        gc.collect()
        serve(owner, {"task": template.run_try}, options, template=template)
    os._exit(0)


JOBS = {"task": run_task, "parse": run_parse, "ask": run_ask, "template": become_template}


def main(options: dict[str, Any], compile_again: Callable[[EOFError], None]) -> None:
    """`compile_again` restarts the process because a compiled module is truncated."""
    owner = socket.socket(fileno=OWNER)
    os.set_inheritable(OWNER, False)
    try:
        try:
            begin(options)
        except EOFError as error:
            os.set_inheritable(OWNER, True)
            compile_again(error)
        os.chdir(options["folder"])
        time.tzset()
        serve(owner, JOBS, options, () if real_sdk.is_active() else (*own_modules(), *STANDARD))
    except Exception as error:
        owner.send(json.dumps({"error": describe(error)}).encode())
        raise
    sys.stdout.flush()
    sys.stderr.flush()
    # Ending the interpreter would free every object of the preloaded modules: half a second for Airflow's SDK.
    os._exit(0)


def begin(options):
    """Preloads the modules that forks use."""
    # Collecting while modules load takes a sixth of the load time of Airflow's SDK, and later would write to pages that
    # the forks share. The forks enable it, see `forks.become`.
    gc.disable()
    environment = dict(os.environ)
    # The folder of the support packages is needed only during the preload; each fork adds it itself.
    support = [options["support"]] if "support" in options else []
    sys.path += support
    if real_sdk.is_active():
        load(STANDARD)
        from leoflow.sdk.warm import preload

        libraries.is_loaded_too_early = preload.preload_all()
    else:
        load(FIRST)
    # With settings of Airflow's, the task could have effects: those of Sentry report errors, those of metrics send them.
    if not real_sdk.has_settings():
        warm_up()
    refuse_threads()
    left_out = libraries.load_ahead(options["preload"], load)
    if left_out:
        restart_without(*left_out, options, environment)
    sys.path[:] = [folder for folder in sys.path if folder not in support]


def warm_up():
    from leoflow.entry.warm.warm_up import warm_up

    try:
        warm_up()
    except Exception as error:
        # Tasks then take a little longer.
        sys.stderr.write(f"failed to warm up: {error!r}\n")


def refuse_threads():
    """Raises RuntimeError if this process has more than one thread."""
    names = libraries.end_threads()
    if names:
        raise RuntimeError(f"a module started threads, which do not survive a fork: {', '.join(names)}")


def restart_without(name, reason, options, environment):
    """Re-executes the process without a library, because only exec ends the library's threads. The pid and the socket
    stay the same."""
    preload = [preloaded for preloaded in options["preload"] if preloaded != name]
    options = {**options, "preload": preload, "left_out": {**options.get("left_out", {}), name: reason}}
    os.set_inheritable(OWNER, True)
    os.execve(sys.executable, [*sys.orig_argv[:-1], json.dumps(options)], environment)


def load(names):
    for name in names:
        try:
            importlib.import_module(name)
        except EOFError:
            raise
        except Exception as error:
            sys.stderr.write(f"failed to preload {name}: {error!r}\n")


def own_modules() -> Iterator[str]:
    """Yields the names of this package's modules that a DAG file or a task may use."""
    for layer in ("common", "authoring", "running"):
        yield from modules_below(os.path.join(PACKAGE, "leoflow", layer), f"leoflow.{layer}")
    yield from (f"leoflow.entry.{name}" for name in ("parse", "ask", "settings", "dotenv", "reads", "structure"))


def modules_below(folder, package):
    """Yields the names of the modules in a folder of this package and in its subfolders."""
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if entry.name.startswith("_"):
            continue
        if entry.is_dir():
            yield from modules_below(entry.path, f"{package}.{entry.name}")
        elif entry.name.endswith(".py"):
            yield f"{package}.{entry.name[:-3]}"
