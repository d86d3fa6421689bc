"""A warm Python forks children of its own parent."""

import ctypes
import os
import sys
import unittest
from unittest import mock

from leoflow.entry import forks

SET_CHILD_SUBREAPER = 36


@unittest.skipUnless(sys.platform == "linux", "a warm Python needs Linux")
class TestForks(unittest.TestCase):
    def forked(self, thread_id_address=forks.thread_id_address):
        """Forks a child in a process that stands for a warm Python; returns what the child says of itself, and the exit
        codes of the warm Python and the child as this process sees them."""
        # This process adopts orphans, as a keeper does.
        ctypes.CDLL(None).prctl(SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        reader, writer = os.pipe()
        warm = os.fork()
        if warm == 0:
            with mock.patch.object(forks, "thread_id_address", thread_id_address):
                pid = forks.fork_for_parent()
                if pid == 0:
                    thread_id = ctypes.CDLL(None).gettid()
                    # Uses the thread's id that the C library keeps: 0 if the kernel knows a thread by it.
                    raised = ctypes.CDLL(None)["raise"](0)
                    os.write(writer, f"child {os.getpid() == thread_id} {raised}".encode())
                    os._exit(7)
                os._exit(3)
        os.close(writer)
        exits = {}
        for _ in range(2):
            pid, status = os.wait()
            exits["warm" if pid == warm else "child"] = os.waitstatus_to_exitcode(status)
        with os.fdopen(reader, "rb") as pipe:
            return pipe.read().decode(), exits

    def test_the_child_of_a_fork_belongs_to_the_parent(self):
        self.assertEqual(self.forked(), ("child True 0", {"warm": 3, "child": 7}))

    def test_the_same_where_the_c_library_is_unknown(self):
        self.assertEqual(self.forked(lambda: 0), ("child True 0", {"warm": 3, "child": 7}))

    def test_glibc_tells_its_address(self):
        if "glibc" in os.confstr("CS_GNU_LIBC_VERSION"):
            self.assertNotEqual(forks.thread_id_address(), 0)
