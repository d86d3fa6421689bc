"""A try that a warm Python starts: the fork takes the try, forks the task, and then becomes the keeper by exec. The task
is the keeper's own child, as in a cold start, and nothing of it depends on the warm Python any more."""

from __future__ import annotations

import datetime
import errno
import json
import os
import sys

from leoflow.common import plain_files
from leoflow.entry import forks, working_folder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

# Another process has the try, or something failed before there was a task.
NOT_NEEDED, CANNOT_START = 75, 70
# What link(2) answers on a file system that knows no hard links, or where they are not allowed.
NO_LINKS = frozenset((errno.EACCES, errno.EMLINK, errno.ENOSYS, errno.ENOTSUP, errno.EPERM))


def start(request: dict[str, Any], mark: forks.Mark, boot_id: str, program: int) -> int:
    """Returns the pid of the keeper-to-be, which executes what `program` is a descriptor of."""
    pid = forks.fork_for_exec()
    if pid == 0:
        try:
            become_keeper(request, mark, boot_id, program)
        except BaseException as error:
            os.write(2, f"the try could not be started: {error!r}\n".encode())
        finally:
            os._exit(CANNOT_START)
    return pid


def take(folder, boot_id):
    """As a cold keeper does: of several, one has the try."""
    pid = os.getpid()
    mine = os.path.join(folder, f"process.{pid}")
    # Of numbers and a UUID: no character of it means anything in JSON.
    told = f'{{"pid": {pid}, "start_ticks": {int(forks.stat_fields()[19])}, "boot_id": "{boot_id}"}}'
    plain_files.write(mine, told.encode(), 0o600)
    try:
        link(mine, folder)
        return True
    except FileExistsError:
        return False
    finally:
        try:
            os.unlink(mine)
        except FileNotFoundError:
            # It was renamed.
            pass


def link(mine, folder):
    """Takes the try or raises FileExistsError. Where the file system has no hard links, a file that only one process can
    create stands for the link, as in `TaskFolder::take_without_links`."""
    taken = os.path.join(folder, "process.json")
    try:
        os.link(mine, taken)
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        os.close(os.open(os.path.join(folder, "taken"), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        os.rename(mine, taken)


def become_keeper(request: dict[str, Any], mark: forks.Mark, boot_id: str, program: int) -> NoReturn:
    """In the fork: takes the try, starts the task, and goes on as the keeper's program."""
    os.setpgid(0, 0)
    # It waits for the keeper, to which it is an event.
    forks.set_mask(forks.BLOCK, (forks.SIGTERM,))
    forks.set_handler(forks.SIGCHLD, forks.DEFAULT)
    forks.set_handler(forks.SIGPIPE, forks.DEFAULT)
    # What it leaves behind in other sessions comes to the keeper: said before there is a task, and kept over the exec.
    forks.control(forks.SET_CHILD_SUBREAPER, 1)
    folder = request["folder"]
    null = os.open("/dev/null", os.O_RDONLY)
    log = os.open(os.path.join(folder, "keeper.log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    output, task_output = os.pipe()
    errors, task_errors = os.pipe()
    secrets, task_secrets = os.pipe()
    if not take(folder, boot_id):
        os._exit(NOT_NEEDED)
    task = None
    try:
        mark.write(os.path.basename(folder))
        keeper = os.getpid()
        task = os.fork()
        if task == 0:
            become_task(request, keeper, [null, task_output, task_errors, task_secrets])
        # Also done by the task: whoever is first.
        try:
            os.setpgid(task, task)
        except OSError:
            pass
        execute(folder, task, [null, log, log, output, errors, secrets, os.dup(program)])
    except BaseException as error:
        # The try is ours, so its end is ours to tell; the kernel ends a task that there may be.
        passes = task is None and isinstance(error, OSError) and error.errno in plain_files.TRANSIENT
        write_problem(folder, f"the task could not be kept: {error!r}", passes)
        raise


def execute(folder, task, descriptors):
    """Becomes the keeper's program, the last of the descriptors; the others are what it is given."""
    forks.place(descriptors)
    program = len(descriptors) - 1
    os.set_inheritable(program, False)
    environment = {name: value for name, value in os.environ.items() if name != forks.MARK}
    os.execve(program, ["leoflow", "keep-task", folder, "--started", str(task)], environment)


def write_problem(folder, problem, passes):
    """`passes` is whether no task was started, for a cause that passes: then the try is queued again."""
    now = datetime.datetime.now(datetime.timezone.utc).isoformat().replace("+00:00", "Z")
    partial = os.path.join(folder, f"outcome.json.{os.getpid()}")
    outcome = {"exit": None, "ended_at": now, "cause": None, "problem": problem, "transient": passes}
    text = json.dumps(outcome).encode()

    def attempt():
        plain_files.write(partial, text, 0o600)
        os.rename(partial, os.path.join(folder, "outcome.json"))

    plain_files.until_it_passes("the outcome", attempt)


def become_task(request: dict[str, Any], keeper: int, descriptors: list[int]) -> NoReturn:
    """In the fork of the fork."""

    def work():
        working_folder.enter(request["options"])
        sys.argv = [request["folder"]]
        from leoflow.entry.task import main

        main(request["options"])

    os.setpgid(0, 0)
    try:
        plain_files.write("/proc/self/oom_score_adj", request["oom_score"].encode())
    except OSError:
        # Without it the task runs all the same.
        pass
    forks.become(keeper, os.path.basename(request["folder"]), descriptors, work)
