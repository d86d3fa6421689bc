"""Tests signals that a process of a task receives while it is being forked."""

import os
import signal
import subprocess
import sys
import unittest

PACKAGE = os.path.join(os.path.dirname(__file__), "../../src/python/package")

# The first hook in the child runs before the handlers are reset.
EARLY_SIGNAL = """
import os, signal, sys
os.register_at_fork(after_in_child=lambda: os.kill(os.getpid(), signal.SIGTERM))
from leoflow.running import fork_signals
fork_signals.reset_handlers()
signal.signal(signal.SIGTERM, lambda *_: None)
signal.pthread_sigmask(signal.SIG_SETMASK, [signal.SIGUSR1])
child = os.fork()
if child == 0:
    os._exit(0)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), signal.pthread_sigmask(signal.SIG_BLOCK, []) == {signal.SIGUSR1})
"""


# This hook runs while the signals are blocked, because hooks before the fork run in reverse order.
SIGNAL_IN_THE_PARENT = """
import os, signal
parent = os.getpid()
os.register_at_fork(before=lambda: os.kill(parent, signal.SIGTERM))
from leoflow.running import fork_signals
fork_signals.reset_handlers()

def handler(*_):
    raise TimeoutError

signal.signal(signal.SIGTERM, handler)
try:
    if os.fork() == 0:
        os._exit(0)
except TimeoutError:
    print("ended")
"""


def run(script):
    environment = {**os.environ, "PYTHONPATH": PACKAGE}
    output = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=60)
    return output.stdout, output.stderr


class ForkSignalsTest(unittest.TestCase):
    def test_a_signal_ends_a_child_that_has_just_been_forked(self):
        self.assertEqual(run(EARLY_SIGNAL), (f"{-signal.SIGTERM} True\n", ""))

    def test_a_signal_during_a_fork_reaches_the_parents_code(self):
        self.assertEqual(run(SIGNAL_IN_THE_PARENT), ("ended\n", ""))


if __name__ == "__main__":
    unittest.main()
