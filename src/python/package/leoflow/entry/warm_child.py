"""A child of the server that a warm Python starts: it runs a DAG file, or answers a question about one. A fork between
the two ends at once, so that the child is the server's own: it is waited for, limited and ended as one that was started
cold."""

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

# For the server to become its parent, which is a matter of microseconds; and between looks.
ADOPTION_SECONDS = 2
ADOPTION_LOOK_SECONDS = 0.0002


def start(request: dict[str, Any], mark: forks.Mark, owner: socket.socket, descriptors: list[int]) -> None:
    """`descriptors` are where its output and its result go; its pid is said to the owner."""
    parent = os.getppid()
    between = forks.fork_for_exec()
    if between:
        return
    try:
        # With the session of its own it is no child of the server's that nobody waits for, whenever it is adopted.
        os.setsid()
        # How the child ended waits for the server, also when it ends before this does.
        forks.set_handler(forks.SIGCHLD, forks.DEFAULT)
        child = os.fork()
        if child == 0:
            try:
                become_child(request, mark, parent, descriptors)
            finally:
                # Only one of the two may answer.
                os._exit(1)
        answer = {"id": request["id"], "pid": child}
    except BaseException as error:
        answer = {"id": request["id"], "error": str(error), "errno": getattr(error, "errno", None)}
    owner.send(json.dumps(answer).encode())
    os._exit(0)


def become_child(request, mark, parent, descriptors) -> NoReturn:
    os.setsid()
    mark.write(request["mark"])
    until = time.monotonic() + ADOPTION_SECONDS
    while os.getppid() != parent and time.monotonic() < until:
        # Not a loop that takes the processor from whom it waits for.
        time.sleep(ADOPTION_LOOK_SECONDS)
    output, result = descriptors
    # Whoever waited too long for the answer has let go of the other end, and started another child.
    look = select.poll()
    look.register(result, 0)
    if look.poll(0):
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
