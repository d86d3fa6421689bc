"""A process that a warm Python (`zygote.py`) forks: a try of a task, or a child that parses a DAG file or answers a
question about one. It is a child of the warm Python's own parent, as if that parent had started it."""

from __future__ import annotations

import os
import sys

from leoflow.common import plain_files
from leoflow.entry import forks, working_folder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn


def start(request: dict[str, Any], mark: forks.Mark, descriptors: list[int]) -> int:
    """Forks the process; returns its pid. The first descriptor is a pipe over which its parent lets it begin; the others
    become its standard output, standard error, and descriptor 3."""
    parent = os.getppid()
    pid = forks.fork_for_parent()
    if pid == 0:
        try:
            become(request, mark, parent, *descriptors)
        except BaseException as error:
            os.write(2, f"failed to start the process: {error!r}\n".encode())
        finally:
            os._exit(1)
    return pid


def become(request: dict[str, Any], mark: forks.Mark, parent: int, gate: int, *descriptors: int) -> NoReturn:
    """In the fork: does the requested job."""
    if request["job"] == "task":
        os.setpgid(0, 0)
        lower_priority_for_memory(request["oom_score"])
    else:
        os.setsid()
    mark.write(request["mark"])
    null = os.open("/dev/null", os.O_RDONLY)
    # The parent has closed the pipe if it has started another process instead of this one, which was late.
    if os.read(gate, 1) != b"1":
        os._exit(0)

    def work():
        options = request["options"]
        working_folder.enter(options)
        sys.argv = [options.get("path") or options.get("folder")]
        if request["job"] == "task":
            from leoflow.entry.task import main
        elif request["job"] == "parse":
            from leoflow.entry.parse import main
        else:
            from leoflow.entry.ask import main
        main(options)

    forks.become(parent, request["mark"], [null, *descriptors], work)


def lower_priority_for_memory(score):
    """Lets the kernel kill this process before others when memory is short. The parent sets the score too, but a task may
    read it earlier."""
    try:
        plain_files.write("/proc/self/oom_score_adj", score.encode())
    except OSError:
        # The score is optional.
        pass
