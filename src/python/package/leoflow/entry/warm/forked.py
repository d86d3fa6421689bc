"""A process that a warm Python (`zygote.py`) or a template forks: a try of a task, a child that parses a DAG file or answers
a question about one, or a template. It is a child of the warm Python's own parent, as if that parent had started it."""

from __future__ import annotations

import os
import sys

from leoflow.common import plain_files
from leoflow.entry import forks, working_folder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

    Run = Callable[[dict[str, Any]], None]


def start(request: dict[str, Any], mark: forks.Mark, descriptors: list[int], run: Run, has_user_code: bool) -> int:
    """Forks a process that calls `run` with the options of the request; returns its pid. The first descriptor is a pipe
    over which its parent lets it begin; the others become its standard output, standard error, and descriptor 3."""
    parent = os.getppid()
    pid = forks.fork_for_parent()
    if pid == 0:
        try:
            become(request, mark, parent, descriptors, run, has_user_code)
        except BaseException as error:
            os.write(2, f"failed to start the process: {error!r}\n".encode())
        finally:
            os._exit(1)
    return pid


def become(request, mark, parent, descriptors, run, has_user_code) -> NoReturn:
    if request["job"] in ("parse", "ask"):
        os.setsid()
    else:
        os.setpgid(0, 0)
    if "oom_score" in request:
        lower_priority_for_memory(request["oom_score"])
    mark.write(request["mark"])
    null = os.open("/dev/null", os.O_RDONLY)
    # The parent has closed the pipe if it has started another process instead of this one, which was late.
    gate, *others = descriptors
    if os.read(gate, 1) != b"1":
        os._exit(0)

    def work():
        options = request["options"]
        if not has_user_code:
            working_folder.enter(options)
        sys.argv = [options.get("path") or options.get("folder")]
        run(options)

    forks.become(parent, request["mark"], [null, *others], work, has_user_code)


def lower_priority_for_memory(score):
    """Lets the kernel kill this process before others when memory is short. The parent sets the score too, but a task may
    read it earlier."""
    try:
        plain_files.write("/proc/self/oom_score_adj", score.encode())
    except OSError:
        # The score is optional.
        pass
