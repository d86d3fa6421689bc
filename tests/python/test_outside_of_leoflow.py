"""DAG files in processes that Leoflow did not start: `python dag.py`, pytest, an IDE."""

import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import unittest
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "src" / "python" / "package"
DAG_FILE = """
from datetime import datetime
from airflow.sdk import DAG, BaseHook, Variable
from airflow.utils.state import DagRunState
from airflow.providers.standard.operators.empty import EmptyOperator

with DAG("sales") as dag:
    EmptyOperator(task_id="t")
"""
# Writes its arguments to a file, and prints the result of a run.
PROGRAM = """#!/bin/sh
for argument in "$@"; do echo "$argument"; done > "$0.arguments"
echo "what a task prints" >&2
[ -z "$ERROR" ] || exit 3
echo '{"dag_id": "sales", "run_id": "r", "logical_date": "2026-01-31T00:00:00Z", "state": "STATE", "task_instances": [
  {"task_id": "t", "map_index": -1, "state": "success", "try_number": 1}]}'
"""


class Outside(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name).resolve()
        self.home = self.folder / "home"
        for part in ("bin", "python", "run"):
            (self.home / part).mkdir(parents=True)
        self.package = self.home / "python" / "leoflow-0123"
        self.package.symlink_to(PACKAGE)
        self.dag_file = self.folder / "dag.py"

    def run_file(self, text, package=None, **variables):
        """Runs `dag.py` with `text` at its end; returns the process's exit code and output."""
        self.dag_file.write_text(DAG_FILE + text)
        package = package or self.package
        environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": f"{package}:{package}/small", **variables}
        done = subprocess.run([sys.executable, "-B", "-s", "dag.py"], cwd=self.folder, env=environment, capture_output=True, text=True)
        return done.returncode, done.stdout, done.stderr

    def add_program(self, folder, state="success"):
        program = folder / "leoflow"
        program.write_text(PROGRAM.replace("STATE", state))
        program.chmod(0o755)
        return program

    def arguments(self, program):
        return Path(f"{program}.arguments").read_text().splitlines()

    def serve(self, status, body):
        """Answers one request on the home's socket."""
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(self.home / "run" / "api.sock"))
        listener.listen()

        def answer():
            stream, _ = listener.accept()
            with stream:
                self.request = stream.recv(65536).decode().partition(" HTTP")[0]
                stream.sendall(f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        self.addCleanup(listener.close)
        return thread

    def test_values_come_from_the_environment_or_are_the_default(self):
        text = "print(Variable.get('city'), Variable.get('nope', default='none'), BaseHook.get_connection('api').host)"
        code, out, err = self.run_file(text, AIRFLOW_VAR_CITY="Lyon", AIRFLOW_CONN_API="http://api.example")
        self.assertEqual((code, out), (0, "Lyon none api.example\n"), err)
        self.assertIn("Leoflow is not running", err)
        # In the sources of Leoflow, the package has no home.
        code, out, err = self.run_file(text, package=PACKAGE, AIRFLOW_VAR_CITY="Lyon", AIRFLOW_CONN_API="http://api.example")
        self.assertEqual((code, out), (0, "Lyon none api.example\n"), err)

    def test_a_missing_value_is_an_error_that_says_what_to_do(self):
        for text, name in ("Variable.get('nope')", "AIRFLOW_VAR_NOPE"), ("BaseHook.get_connection('nope')", "AIRFLOW_CONN_NOPE"):
            code, _, err = self.run_file(text)
            self.assertEqual(code, 1)
            advice = f"start it with `leoflow --home {self.home} lite start`, or set {name} in the project's .env"
            self.assertIn(f"cannot be read: Leoflow is not running ({advice})", err)
        code, out, err = self.run_file("print(BaseHook.get_connection('fs_default').conn_type)")
        self.assertEqual((code, out), (0, "fs\n"), err)
        self.assertIn("(use `leoflow variables set`)", self.run_file("Variable.set('a', 'b')")[2])

    def test_stored_values_come_from_the_running_server_of_the_home(self):
        thread = self.serve("200 OK", '{"value": "Nice"}')
        code, out, err = self.run_file("print(Variable.get('city'))")
        thread.join(10)
        self.assertEqual((code, out, self.request), (0, "Nice\n", "GET /local/variables/city"), err)

    def test_a_value_that_the_server_does_not_have(self):
        thread = self.serve("404 Not Found", "{}")
        _, _, err = self.run_file("Variable.get('city')")
        thread.join(10)
        self.assertIn(f"VARIABLE_NOT_FOUND: Variable 'city' does not exist (create it with `leoflow --home {self.home} variables set`", err)

    def test_dag_test_runs_leoflow_dags_test(self):
        program = self.add_program(self.home / "bin")
        text = ("run = dag.test(logical_date=datetime(2026, 1, 31), run_conf={'a': 'b'})\n"
                "print(run.state, run.state == DagRunState.SUCCESS, run.logical_date.day, run.conf, run.get_task_instances()[0].state)")
        code, out, err = self.run_file(text)
        self.assertEqual((code, out, err), (0, "success True 31 {'a': 'b'} success\n", "what a task prints\n"))
        self.assertEqual(self.arguments(program), [
            "--home", str(self.home), "dags", "test", "sales", "--file", str(self.dag_file), "--json", '--conf={"a": "b"}',
            "--logical-date=2026-01-31T00:00:00+00:00"])

    def test_the_logical_date_of_dag_test_is_now_unless_it_is_none(self):
        program = self.add_program(self.home / "bin", state="failed")
        self.assertEqual(self.run_file("print(dag.test().state)")[:2], (0, "failed\n"))
        self.assertRegex(self.arguments(program)[-1], r"--logical-date=20\d\d-")
        self.run_file("dag.test(logical_date=None)")
        self.assertEqual(self.arguments(program)[-1], "--conf={}")

    def test_dag_test_uses_the_program_on_the_path_or_says_that_there_is_none(self):
        (self.folder / "other").mkdir()
        program = self.add_program(self.folder / "other")
        self.assertEqual(self.run_file("dag.test()", PATH=f"{self.folder}/other:/usr/bin:/bin")[0], 0)
        self.assertEqual(self.arguments(program)[:3], ["--home", str(self.home), "dags"])
        code, _, err = self.run_file("dag.test()", PATH="/nowhere")
        self.assertEqual(code, 1)
        self.assertIn("DAG.test() runs `leoflow dags test`, and the program leoflow is not in the folders of PATH (/nowhere)", err)

    def test_a_failure_of_the_command_is_an_error(self):
        self.add_program(self.home / "bin")
        code, _, err = self.run_file("dag.test()", ERROR="1")
        self.assertEqual(code, 1)
        self.assertRegex(err, "AirflowException: `.*leoflow --home .* dags test sales .*` failed with exit code 3")

    def test_arguments_of_dag_test_that_leoflow_does_not_have_are_refused(self):
        for argument in ("run_after=datetime(2026, 1, 1)", "conn_file_path='c'", "variable_file_path='v'", "use_executor=True",
                         "mark_success_pattern='t'"):
            _, _, err = self.run_file(f"dag.test({argument})")
            self.assertIn(f"the argument {argument.partition('=')[0]} of DAG.test() is not supported by Leoflow", err)

    def test_dag_test_is_refused_while_leoflow_imports_the_file(self):
        self.dag_file.write_text(DAG_FILE + "dag.test()\n")
        reader, writer = os.pipe()
        options = {"path": str(self.dag_file), "roots": [str(self.folder)], "descriptor": writer}
        command = [sys.executable, "-E", "-B", str(PACKAGE / "_leoflow_entry.py"), "parse", json.dumps(options)]
        subprocess.run(command, pass_fds=[writer], check=True)
        os.close(writer)
        with os.fdopen(reader) as pipe:
            error = json.load(pipe)["error"]
        self.assertIn("DAG.test() in code that Leoflow runs (use `leoflow dags test`, or call it below `if __name__", error)
