"""A warm Python with libraries that start threads, and the exit of forks."""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import unittest
from pathlib import Path

import test_project_environment as processes

# Like pandas with pyarrow, whose jemalloc starts a thread unless a variable disables the thread before the load.
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


@unittest.skipUnless(sys.platform == "linux", "a warm Python needs Linux")
class TestWarmPython(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def zygote(self, **libraries):
        """Starts a warm Python with libraries (keyword arguments NAME=SOURCE); returns its first message, its socket
        and its pid."""
        for name, text in libraries.items():
            (self.folder / f"{name}.py").write_text(textwrap.dedent(text))
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        options = {"folder": str(self.folder), "preload": sorted(libraries), "support": str(self.folder)}
        # `-s -S` hides the packages of this machine.
        started = processes.python("zygote", options, [theirs.fileno()], "-s", "-S")
        theirs.close()
        self.addCleanup(started.wait)
        self.addCleanup(ours.close)
        return json.loads(ours.recv(65536)), ours, started.pid

    def test_arrows_thread_is_disabled(self):
        message, ours, _ = self.zygote(numpy="", pandas=LIKE_ARROW)
        self.assertEqual((message["ready"], message["left_out"]), (True, {}))
        (self.folder / "dag.py").write_text(textwrap.dedent(DAG))
        dag, = processes.parse_in_fork(ours, {"path": f"{self.folder}/dag.py", "roots": [str(self.folder)]})["dags"]
        self.assertEqual(dag["dag_id"], "without", "forks have the original variables")

    def test_a_library_that_starts_a_thread_is_left_out(self):
        message, _, pid = self.zygote(requests="", numpy="", pandas=STARTS_A_THREAD)
        self.assertEqual(message["ready"], True)
        self.assertEqual(list(message["left_out"]), ["pandas"])
        self.assertIn("it starts threads", message["left_out"]["pandas"])
        self.assertEqual(len(os.listdir(f"/proc/{pid}/task")), 1)

    def test_several_libraries_that_start_threads_are_left_out(self):
        message, _, _ = self.zygote(numpy=STARTS_A_THREAD, pandas="import numpy\n" + textwrap.dedent(STARTS_A_THREAD))
        self.assertEqual(sorted(message["left_out"]), ["numpy", "pandas"])

    def test_warming_up_changes_nothing_in_its_process(self):
        code = """
            import logging, os, signal
            from leoflow.authoring.dag.dag import created_dags
            from leoflow.entry.warm.warm_up import warm_up

            def state():
                handlers = [signal.getsignal(number) for number in (signal.SIGALRM, signal.SIGTERM)]
                levels = [logging.getLogger(name).level for name in (None, "httpx", "sqlalchemy.engine")]
                return dict(os.environ), handlers, levels, logging.getLogger().handlers[:], created_dags[:]

            before = state()
            print(warm_up()["state"], state() == before)
        """
        environment = {**os.environ, "AIRFLOW_CTX_DAG_ID": "of the user"}
        command = [sys.executable, "-c", textwrap.dedent(code)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30)
        self.assertEqual((done.stdout, done.stderr), ("success True\n", ""))

    def leave(self, code):
        """Runs code in a process that then ends with `task.leave`, like the process of a task."""
        code = f"import atexit, threading, time\nfrom leoflow.entry import task\ntask.EXIT_SECONDS = 1\n{code}\ntask.leave(3)"
        return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)

    def test_a_task_ends_with_its_exit_functions(self):
        done = self.leave("threading.Thread(target=time.sleep, args=(20,)).start()\natexit.register(print, 'flushed')")
        self.assertEqual((done.returncode, done.stdout), (3, "flushed\n"), done.stderr)
        done = self.leave("atexit.register(int, 'x')\natexit.register(print, 'flushed', end='')")
        self.assertEqual((done.returncode, done.stdout), (3, "flushed"))
        self.assertIn("ValueError", done.stderr)
        # An exit function that hangs, as in apache/airflow#72035.
        self.assertEqual(self.leave("atexit.register(time.sleep, 20)").returncode, -signal.SIGALRM)


if __name__ == "__main__":
    unittest.main()
