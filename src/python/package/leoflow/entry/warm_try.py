"""A try that a warm Python (`zygote.py`) forks: the fork claims the try, forks the task, and then executes the program
of its keeper (the process that supervises the task and writes its log). As after a cold start, the task is the keeper's
child and does not depend on the warm Python."""

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

# Exit codes: another process has claimed the try; the start has failed.
ALREADY_CLAIMED, START_FAILED = 75, 70
# Errors of link(2) if hard links are not supported or not allowed.
NO_LINKS = frozenset((errno.EACCES, errno.EMLINK, errno.ENOSYS, errno.ENOTSUP, errno.EPERM))


def start(request: dict[str, Any], mark: forks.Mark, boot_id: str, program: int) -> int:
    """Forks the process that becomes the keeper; returns its pid. `program` is a descriptor of the keeper's program."""
    pid = forks.fork_for_exec()
    if pid == 0:
        try:
            become_keeper(request, mark, boot_id, program)
        except BaseException as error:
            os.write(2, f"failed to start the try: {error!r}\n".encode())
        finally:
            os._exit(START_FAILED)
    return pid


def claim(folder, boot_id):
    """Claims the try like `TaskFolder::take` of a keeper. Returns True in exactly one process."""
    pid = os.getpid()
    own_file = os.path.join(folder, f"process.{pid}")
    # Numbers and a UUID need no escaping in JSON.
    content = f'{{"pid": {pid}, "start_ticks": {int(forks.stat_fields()[19])}, "boot_id": "{boot_id}"}}'
    plain_files.write(own_file, content.encode(), 0o600)
    try:
        link(own_file, folder)
        return True
    except FileExistsError:
        return False
    finally:
        try:
            os.unlink(own_file)
        except FileNotFoundError:
            # `link` has renamed the file.
            pass


def link(own_file, folder):
    """Claims the try or raises FileExistsError. On a file system without hard links, a file created with O_EXCL
    replaces the link, as in `TaskFolder::take_without_links`."""
    claimed = os.path.join(folder, "process.json")
    try:
        os.link(own_file, claimed)
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        os.close(os.open(os.path.join(folder, "taken"), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        os.rename(own_file, claimed)


def become_keeper(request: dict[str, Any], mark: forks.Mark, boot_id: str, program: int) -> NoReturn:
    """In the fork: claims the try, starts the task, and executes the keeper's program."""
    os.setpgid(0, 0)
    # SIGTERM stays pending until the keeper, which reads signals as events, handles it.
    forks.set_mask(forks.BLOCK, (forks.SIGTERM,))
    forks.set_handler(forks.SIGCHLD, forks.DEFAULT)
    forks.set_handler(forks.SIGPIPE, forks.DEFAULT)
    # The kernel reparents orphans of the task to the keeper. Set before the task starts; exec keeps the setting.
    forks.control(forks.SET_CHILD_SUBREAPER, 1)
    folder = request["folder"]
    null = os.open("/dev/null", os.O_RDONLY)
    log = os.open(os.path.join(folder, "keeper.log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    output, task_output = os.pipe()
    errors, task_errors = os.pipe()
    secrets, task_secrets = os.pipe()
    if not claim(folder, boot_id):
        os._exit(ALREADY_CLAIMED)
    task = None
    try:
        mark.write(os.path.basename(folder))
        keeper = os.getpid()
        task = os.fork()
        if task == 0:
            become_task(request, keeper, [null, task_output, task_errors, task_secrets])
        # The task makes the same call; the second of the two has no effect.
        try:
            os.setpgid(task, task)
        except OSError:
            pass
        execute(folder, task, [null, log, log, output, errors, secrets, os.dup(program)])
    except BaseException as error:
        # This process has claimed the try, so it must report the failure. The kernel kills a started task when this
        # process exits.
        is_transient = task is None and isinstance(error, OSError) and error.errno in plain_files.TRANSIENT
        write_problem(folder, f"failed to start the keeper of the task: {error!r}", is_transient)
        raise


def execute(folder, task, descriptors):
    """Executes the keeper's program, whose file is the last descriptor; the keeper inherits the other descriptors."""
    forks.place_descriptors(descriptors)
    program = len(descriptors) - 1
    os.set_inheritable(program, False)
    environment = {name: value for name, value in os.environ.items() if name != forks.MARK}
    os.execve(program, ["leoflow", "keep-task", folder, "--started", str(task)], environment)


def write_problem(folder, problem, is_transient):
    """Writes the outcome of a failed start. `is_transient` is True if no task was started and the cause is transient;
    the agent then queues the try again."""
    now = datetime.datetime.now(datetime.timezone.utc).isoformat().replace("+00:00", "Z")
    partial = os.path.join(folder, f"outcome.json.{os.getpid()}")
    outcome = {"exit": None, "ended_at": now, "cause": None, "problem": problem, "transient": is_transient}
    text = json.dumps(outcome).encode()

    def attempt():
        plain_files.write(partial, text, 0o600)
        os.rename(partial, os.path.join(folder, "outcome.json"))

    plain_files.retry_transient("the outcome", attempt)


def become_task(request: dict[str, Any], keeper: int, descriptors: list[int]) -> NoReturn:
    """In the second fork: runs the task."""

    def work():
        working_folder.enter(request["options"])
        sys.argv = [request["folder"]]
        from leoflow.entry.task import main

        main(request["options"])

    os.setpgid(0, 0)
    try:
        plain_files.write("/proc/self/oom_score_adj", request["oom_score"].encode())
    except OSError:
        # The OOM score is optional.
        pass
    forks.become(keeper, os.path.basename(request["folder"]), descriptors, work)
