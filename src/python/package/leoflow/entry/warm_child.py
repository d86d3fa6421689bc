"""A child that a warm Python (`zygote.py`) forks for the server, to parse a DAG file or to answer a question about one.
An intermediate fork forks the child and exits at once, so that the server becomes the child's parent, as if it had
started the child itself."""

from __future__ import annotations

import json
import os
import select
import sys
import time

from leoflow.entry import forks, working_folder

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from typing import Any, NoReturn

# Time limit and poll interval for waiting until the server is the child's parent, which takes microseconds.
ADOPTION_SECONDS = 2
ADOPTION_POLL_SECONDS = 0.0002


def start(request: dict[str, Any], mark: forks.Mark, owner: socket.socket, descriptors: list[int]) -> None:
    """Starts a child and sends its pid to the owner. `descriptors` are those for its output and its result."""
    parent = os.getppid()
    intermediate = forks.fork_for_exec()
    if intermediate:
        return
    try:
        # A session of its own, so that a server that becomes the parent of this process reaps it as a leftover.
        os.setsid()
        # If SIGCHLD were ignored, the kernel would discard the status of a child that exits before this process.
        forks.set_handler(forks.SIGCHLD, forks.DEFAULT)
        child = os.fork()
        if child == 0:
            try:
                become_child(request, mark, parent, descriptors)
            finally:
                # Only the intermediate fork may continue below and answer.
                os._exit(1)
        answer = {"id": request["id"], "pid": child}
    except BaseException as error:
        answer = {"id": request["id"], "error": str(error), "errno": getattr(error, "errno", None)}
    owner.send(json.dumps(answer).encode())
    os._exit(0)


def become_child(request, mark, parent, descriptors) -> NoReturn:
    os.setsid()
    mark.write(request["mark"])
    deadline = time.monotonic() + ADOPTION_SECONDS
    while os.getppid() != parent and time.monotonic() < deadline:
        # Sleeps, so that the loop leaves the processor to the intermediate fork.
        time.sleep(ADOPTION_POLL_SECONDS)
    output, result = descriptors
    # If the server has closed its end, it has timed out and started another child.
    poll = select.poll()
    poll.register(result, 0)
    if poll.poll(0):
        os._exit(1)
    null = os.open("/dev/null", os.O_RDONLY)

    def work():
        options = request["options"]
        working_folder.enter(options)
        sys.argv = [options["path"]]
        if request["job"] == "parse":
            from leoflow.entry.parse import main
        else:
            from leoflow.entry.ask import main
        main(options)

    forks.become(parent, request["mark"], [null, output, output, result], work)
