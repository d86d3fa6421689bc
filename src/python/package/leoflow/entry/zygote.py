"""A warm Python: it has what every task needs loaded, runs nothing of the user's, and forks for each try.

Its owner sends one JSON datagram a try, `{"folder", "options"}`, and gets `{"pid"}` or `{"error"}`. The
fork takes the try, forks the task, and then becomes the keeper by exec: the task is the keeper's own child, as in a
cold start, and nothing of it depends on the zygote any more.
"""

from __future__ import annotations

import ctypes
import datetime
import gc
import importlib
import json
import os
import signal
import socket
import sys
import time

from leoflow.entry import working_folder, workspace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

# What marks the processes of a try, in their environment; here it has room for any mark.
MARK = "LEOFLOW_TASK"
# linux/prctl.h
SET_PARENT_DEATH_SIGNAL, SET_CHILD_SUBREAPER = 1, 36
# Where both sides of a fork find what the owner has passed.
OWNER, PROGRAM = 3, 4
# Another process has the try, or something failed before there was a task.
NOT_NEEDED, CANNOT_START = 75, 70
LARGEST_REQUEST = 1024 * 1024
# What most tasks import of Python's own, and what our own modules import when it is first used.
STANDARD = (
    "base64", "concurrent.futures", "copy", "csv", "datetime", "decimal", "functools", "glob", "hashlib", "http.client",
    "inspect", "io", "itertools", "json", "linecache", "logging", "math", "os.path", "pathlib", "random", "re", "shutil",
    "socket", "stat", "string", "subprocess", "tempfile", "time", "traceback", "typing", "urllib.parse", "uuid", "zoneinfo",
)
PARTS = {"jinja2": ("jinja2.nativetypes", "jinja2.sandbox")}

_libc = ctypes.CDLL(None, use_errno=True)


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


def take(folder, boot_id):
    """As a cold keeper does: of several, one has the try."""
    pid = os.getpid()
    mine = os.path.join(folder, f"process.{pid}")
    with open(mine, "w", encoding="utf-8") as file:
        json.dump({"pid": pid, "start_ticks": int(stat_fields()[19]), "boot_id": boot_id}, file)
    try:
        os.link(mine, os.path.join(folder, "process.json"))
        return True
    except FileExistsError:
        return False
    finally:
        os.unlink(mine)


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


def become_keeper(request: dict[str, Any], mark: Mark, boot_id: str) -> NoReturn:
    """In the fork: takes the try, starts the task, and goes on as the keeper's program."""
    os.setpgid(0, 0)
    # It waits for the keeper, to which it is an event.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    # What it leaves behind in other sessions comes to the keeper: said before there is a task, and kept over the exec.
    _libc.prctl(SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    folder = request["folder"]
    null = os.open("/dev/null", os.O_RDONLY)
    log = os.open(os.path.join(folder, "keeper.log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    output, task_output = os.pipe()
    secrets, task_secrets = os.pipe()
    if not take(folder, boot_id):
        os._exit(NOT_NEEDED)
    try:
        mark.write(os.path.basename(folder))
        keeper = os.getpid()
        task = os.fork()
        if task == 0:
            become_task(request, keeper, [null, task_output, task_output, task_secrets])
        # Also done by the task: whoever is first.
        try:
            os.setpgid(task, task)
        except OSError:
            pass
        execute(folder, task, [null, log, log, output, secrets, os.dup(PROGRAM)])
    except BaseException as error:
        # The try is ours, so its end is ours to tell; the kernel ends a task that there may be.
        tell_problem(folder, f"the task could not be kept: {error!r}")
        raise


def execute(folder, task, descriptors):
    """Becomes the keeper's program, the last of the descriptors; the others are what it is given."""
    place(descriptors)
    program = len(descriptors) - 1
    os.set_inheritable(program, False)
    environment = {name: value for name, value in os.environ.items() if name != MARK}
    os.execve(program, ["leoflow", "keep-task", folder, "--started", str(task)], environment)


def tell_problem(folder, problem):
    now = datetime.datetime.now(datetime.timezone.utc).isoformat().replace("+00:00", "Z")
    partial = os.path.join(folder, f"outcome.json.{os.getpid()}")
    with open(partial, "w", encoding="utf-8") as file:
        json.dump({"exit": None, "ended_at": now, "cause": None, "problem": problem}, file)
    os.rename(partial, os.path.join(folder, "outcome.json"))


def become_task(request: dict[str, Any], keeper: int, descriptors: list[int]) -> NoReturn:
    """In the fork of the fork: as in a process of its own that has just imported the same modules."""
    code = 1
    try:
        os.setpgid(0, 0)
        _libc.prctl(SET_PARENT_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != keeper:
            os._exit(code)
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_SETMASK, set())
        place(descriptors)
        os.environ[MARK] = os.path.basename(request["folder"])
        gc.enable()
        working_folder.enter(request["options"])
        sys.argv = [request["folder"]]
        from leoflow.entry.task import main

        main(request["options"])
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


def serve(owner: socket.socket, options: dict[str, Any]) -> None:
    """Until the owner has gone."""
    mark = Mark()
    # Where that is not allowed nothing can be started, and it is better known now.
    mark.write("_" * mark.length)
    with open("/proc/sys/kernel/random/boot_id", encoding="utf-8") as file:
        boot_id = file.read().strip()
    os.chdir(options["folder"])
    time.tzset()
    # Keepers are nobody's to wait for: how they ended is in their folders.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    gc.collect()
    gc.disable()
    gc.freeze()
    threads = len(os.listdir("/proc/self/task"))
    if threads != 1:
        raise RuntimeError(f"a module has started {threads - 1} thread(s), which a fork would lose")
    # What a module has printed is nobody's task's.
    sys.stdout.flush()
    sys.stderr.flush()
    owner.send(json.dumps({"ready": True, "path": [folder for folder in sys.path if os.path.isdir(folder)]}).encode())
    while True:
        text = owner.recv(LARGEST_REQUEST)
        if not text:
            return
        try:
            answer = {"pid": fork(json.loads(text), mark, boot_id)}
        except OSError as error:
            answer = {"error": str(error)}
        owner.send(json.dumps(answer).encode())


def fork(request, mark, boot_id):
    pid = os.fork()
    if pid == 0:
        try:
            become_keeper(request, mark, boot_id)
        except BaseException as error:
            os.write(2, f"the try could not be started: {error!r}\n".encode())
        finally:
            os._exit(CANNOT_START)
    return pid


def main(options: dict[str, Any]) -> None:
    owner = socket.socket(fileno=OWNER)
    os.set_inheritable(OWNER, False)
    # Where packages are that DAG files expect; a task adds them itself.
    support = [options["support"]] if "support" in options else []
    sys.path += support
    load((*STANDARD, *our_own()))
    before = set(sys.modules)
    load(part for name in options["preload"] for part in (name, *PARTS.get(name, ())))
    workspace.loaded_ahead.update(name.partition(".")[0] for name in set(sys.modules) - before)
    sys.path[:] = [folder for folder in sys.path if folder not in support]
    serve(owner, options)


def load(names):
    for name in names:
        try:
            importlib.import_module(name)
        except Exception as error:
            sys.stderr.write(f"{name} cannot be loaded ahead: {error!r}\n")


def our_own():
    """All that a DAG file or a task may use of this package, and the name that it goes by."""
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    for room in ("common", "authoring", "running"):
        for file in sorted(os.listdir(os.path.join(root, room))):
            if file.endswith(".py") and not file.startswith("_"):
                yield f"leoflow.{room}.{file[:-3]}"
    yield from ("leoflow.entry.task", "leoflow.entry.settings", "leoflow.entry.dotenv", "airflow.sdk")
