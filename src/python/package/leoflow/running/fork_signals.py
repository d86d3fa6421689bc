"""Default signal handlers in the processes that a task forks."""

from __future__ import annotations

import _signal
import os
from _thread import get_ident

_NUMBERS = (_signal.SIGTERM, _signal.SIGALRM)


def reset_handlers() -> None:
    """Resets the signal handlers in processes that this process forks from now on.

    The signals are blocked across the fork. Python discards those that arrive in a child before its handlers are reset:
    `multiprocessing.Pool` would wait forever for the end of a worker that it terminated so early."""
    masks = {}

    def block():
        masks[get_ident()] = _signal.pthread_sigmask(_signal.SIG_BLOCK, _NUMBERS)

    def restore():
        _signal.pthread_sigmask(_signal.SIG_SETMASK, masks.pop(get_ident()))

    def reset():
        for number in _NUMBERS:
            _signal.signal(number, _signal.SIG_DFL)
        restore()

    os.register_at_fork(before=block, after_in_parent=restore, after_in_child=reset)
