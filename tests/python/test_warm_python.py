"""A warm Python: libraries that start threads do not keep it from being one."""

import json
import os
import socket
import sys
import tempfile
import textwrap
import unittest
from pathlib import Path

import test_project_environment as processes

# As pandas with pyarrow does, whose jemalloc has a thread unless it is told otherwise before it is loaded.
LIKE_ARROW = """
    import os
    import threading

    if os.environ.get("JE_ARROW_MALLOC_CONF") != "background_thread:false":
        threading.Thread(target=threading.Event().wait, daemon=True).start()
"""
STARTS_A_THREAD = """
    import threading

    threading.Thread(target=threading.Event().wait, daemon=True).start()
"""
DAG = """
    import os

    from airflow.sdk import DAG, task

    with DAG("with" if "JE_ARROW_MALLOC_CONF" in os.environ else "without"):
        @task
        def t(): ...

        t()
"""


@unittest.skipUnless(sys.platform == "linux", "a warm Python is of Linux alone")
class TestWarmPython(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def zygote(self, **libraries):
        """Starts one with these libraries, by name with their text; returns what it says first and its socket."""
        for name, text in libraries.items():
            (self.folder / f"{name}.py").write_text(textwrap.dedent(text))
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        options = {"folder": str(self.folder), "preload": sorted(libraries), "support": str(self.folder)}
        # Without the packages of this machine.
        started = processes.python("zygote", options, [theirs.fileno(), theirs.fileno()], "-s", "-S")
        theirs.close()
        self.addCleanup(started.wait)
        self.addCleanup(ours.close)
        return json.loads(ours.recv(65536)), ours, started.pid

    def test_the_thread_of_arrow_is_switched_off(self):
        processes.become_subreaper()
        said, ours, _ = self.zygote(numpy="", pandas=LIKE_ARROW)
        self.assertEqual((said["ready"], said["left_out"]), (True, {}))
        (self.folder / "dag.py").write_text(textwrap.dedent(DAG))
        dag, = processes.parse_in_fork(ours, {"path": f"{self.folder}/dag.py", "roots": [str(self.folder)]})["dags"]
        self.assertEqual(dag["dag_id"], "without", "forks have the variables of before")

    def test_a_library_that_starts_a_thread_is_left_out(self):
        said, _, pid = self.zygote(requests="", numpy="", pandas=STARTS_A_THREAD)
        self.assertEqual(said["ready"], True)
        self.assertEqual(list(said["left_out"]), ["pandas"])
        self.assertIn("it starts threads", said["left_out"]["pandas"])
        self.assertEqual(len(os.listdir(f"/proc/{pid}/task")), 1)

    def test_each_of_several_is_left_out(self):
        said, _, _ = self.zygote(numpy=STARTS_A_THREAD, pandas="import numpy\n" + textwrap.dedent(STARTS_A_THREAD))
        self.assertEqual(sorted(said["left_out"]), ["numpy", "pandas"])


if __name__ == "__main__":
    unittest.main()
