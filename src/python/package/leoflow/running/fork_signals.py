"""Default signal handlers in the processes that a task forks."""

from __future__ import annotations

import _signal
import ctypes

# Its own hook must precede those below: it is Python code, and Python discards what a handler raises in such a hook.
import logging  # noqa: F401
import os
from functools import partial

_NUMBERS = (_signal.SIGTERM, _signal.SIGALRM)
# The largest sigset_t, in bytes: that of glibc.
_SIGNAL_SET_BYTES = 128
# Created here, so that a warm Python does it once for all tasks. PyDLL keeps the GIL during a call.
_libc = ctypes.PyDLL(None)
_blocked, _previous = (ctypes.create_string_buffer(_SIGNAL_SET_BYTES) for _ in range(2))
_libc.sigemptyset(_blocked)
for _number in _NUMBERS:
    _libc.sigaddset(_blocked, int(_number))
_block = partial(_libc.pthread_sigmask, int(_signal.SIG_BLOCK), _blocked, _previous)
_restore = partial(_libc.pthread_sigmask, int(_signal.SIG_SETMASK), _previous, None)


def reset_handlers() -> None:
    """Resets the signal handlers in processes that this process forks from now on.

    The signals are blocked across the fork. Python discards those that arrive in a child before its handlers are reset:
    `multiprocessing.Pool` would wait forever for the end of a worker that it terminated so early. In the parent, a
    handler must not run in a hook, where what it raises is discarded. So those hooks are calls of pthread_sigmask(3)
    without Python code; the handler runs after the fork."""

    def reset():
        for number in _NUMBERS:
            _signal.signal(number, _signal.SIG_DFL)
        _restore()

    os.register_at_fork(before=_block, after_in_parent=_restore, after_in_child=reset)
