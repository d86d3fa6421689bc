"""The log of a task, as its keeper reads it."""

import json
import os
import subprocess
import sys
import unittest

from leoflow.common import task_log
from leoflow.common.task_log import error_details, format_record

TASK = r'''
import logging, os, subprocess, sys, warnings
from leoflow.common import task_log
from leoflow.entry import small_backend

sys.stdout.reconfigure(line_buffering=True)
small_backend.begin_log(task_log.to_keeper())
print("printed")
logging.getLogger("x").warning("logged %d", 1)
print("to errors", file=sys.stderr)
logging.getLogger("x").debug("not at this level")
try:
    int("no number")
except ValueError:
    logging.getLogger("y").exception("it failed")
warnings.warn("old", DeprecationWarning, stacklevel=1)
sys.stderr.write("without an end")
subprocess.run(["sh", "-c", "echo of a child; echo its error >&2"])
task_log.log_event("error", "task", "odd \udc80")
task_log.finish()
'''


class Log(unittest.TestCase):
    def test_output_and_records_are_in_order(self):
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        done = subprocess.run([sys.executable, "-W", "always", "-c", TASK], env=environment, capture_output=True, check=True)
        self.assertEqual(done.stderr, b"its error\n")
        found = []
        for line in done.stdout.decode().removesuffix("\n").split("\n"):
            record = json.loads(line[1:]) if line.startswith(task_log.RECORD_START) else None
            found.append((record["level"], record["logger"], record["event"]) if record else line)
            if record and record["logger"] == "y":
                [detail] = record["error_detail"]
                self.assertEqual((detail["exc_type"], detail["frames"][0]["name"]), ("ValueError", "<module>"))
        self.assertEqual(found, [
            "printed",
            ("warning", "x", "logged 1"),
            ("error", "task.stderr", "to errors"),
            ("error", "y", "it failed"),
            ("warning", "py.warnings", "old"),
            "of a child",
            ("error", "task", "odd \\udc80"),
            ("error", "task.stderr", "without an end"),
        ])

    def test_records_of_threads_are_not_mixed(self):
        program = r"""
import logging, sys, threading
from leoflow.common import task_log
from leoflow.entry import small_backend
small_backend.begin_log(task_log.to_keeper())
def logs():
    for _ in range(100):
        logging.getLogger("x").warning("w" * 9000)
def prints():
    for _ in range(100):
        sys.stderr.write("e" * 9000 + "\n")
threads = [threading.Thread(target=one) for one in (logs, prints)]
for one in threads:
    one.start()
for one in threads:
    one.join()
task_log.finish()
"""
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, check=True)
        lines = done.stdout.decode().removesuffix("\n").split("\n")
        self.assertEqual(len(lines), 200)
        for line in lines:
            self.assertEqual(len(json.loads(line.removeprefix(task_log.RECORD_START))["event"]), 9000)

    def test_an_error_has_its_causes_without_our_frames(self):
        try:
            try:
                task_log.masked({"a": Unprintable()})
                raise Unprintable
            except Exception as error:
                raise KeyError("b") from error
        except KeyError as error:
            found = error_details(error)
        self.assertEqual([(detail["exc_type"], detail["exc_value"], detail["is_cause"]) for detail in found],
                         [("KeyError", "'b'", False), ("Unprintable", "<unprintable>", True)])
        text = format_record({"level": "error", "logger": "task", "event": "failed", "n": 1, "error_detail": found})
        self.assertTrue(text.startswith("[ERROR] task: failed n=1\nTraceback (most recent call last):\n  File "), text)
        self.assertTrue(text.endswith("KeyError: 'b'"), text)
        self.assertLess(text.index("Unprintable: <unprintable>"), text.index("KeyError"))

    def test_loggers_have_airflows_names(self):
        from airflow.providers.standard.operators.bash import BashOperator
        from airflow.sdk import DAG, BaseHook, task

        class Hook(BaseHook):
            pass

        with DAG("d"):
            bash = BashOperator(task_id="b", bash_command="x")
            function = task(lambda: 1).override(task_id="f")().operator
        operators = "airflow.task.operators.airflow.providers.standard"
        self.assertEqual(bash.log.name, f"{operators}.operators.bash.BashOperator")
        self.assertEqual(function.log.name, f"{operators}.decorators.python._PythonDecoratedOperator")
        self.assertEqual(Hook().log.name, f"airflow.task.hooks.{__name__}.Hook")
        self.assertEqual(Hook("own").log.name, "airflow.task.hooks.own")


class Unprintable(Exception):
    def __str__(self):
        raise RuntimeError


if __name__ == "__main__":
    unittest.main()
