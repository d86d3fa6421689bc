"""DAG files in processes that Leoflow did not start: `python dag.py`, pytest, an IDE."""

import importlib.metadata
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import unittest
from pathlib import Path

from leoflow.outside import virtual_env

PACKAGE = Path(__file__).parents[2] / "src" / "python" / "package"
DAG_FILE = """
from datetime import datetime
from airflow.sdk import DAG, BaseHook, Variable, task
from airflow.utils.state import DagRunState
from airflow.providers.standard.operators.empty import EmptyOperator

with DAG("sales") as dag:
    EmptyOperator(task_id="t")
"""
# Plays the program: answers each question of the planner by a plan of its own, for tasks without dependencies.
PROGRAM = """#!{python}
import json, os, sys
with open(__file__ + ".arguments", "w") as file:
    json.dump(sys.argv[1:], file)
if "ERROR" in os.environ:
    sys.exit(3)
print(json.dumps({{"settings": {settings}, "roots": ["{folder}"], "max_map_length": 10}}), flush=True)
structure = json.loads(sys.stdin.readline())
for line in sys.stdin:
    instances = json.loads(line)["instances"]
    transitions = []
    for index, instance in enumerate(instances):
        if instance["state"] is None:
            transitions.append([index, "scheduled", 1, False])
        elif instance["ended"]:
            transitions.append([index, instance["ended"]["state"], 1, False])
            instance["state"] = instance["ended"]["state"]
    states = [instance["state"] for instance in instances]
    ended = all(state in ("success", "failed") for state in states)
    run = ("failed" if "failed" in states else "success") if ended else None
    print(json.dumps({{"expanded": [], "added": [], "transitions": transitions, "run": run}}), flush=True)
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

    def add_program(self, folder, settings=None):
        program = folder / "leoflow"
        program.write_text(PROGRAM.format(python=sys.executable, settings=json.dumps(settings).replace("null", "None"), folder=self.folder))
        program.chmod(0o755)
        return program

    def arguments(self, program):
        return json.loads(Path(f"{program}.arguments").read_text())

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

    def test_dag_test_runs_the_tasks_in_this_process(self):
        program = self.add_program(self.home / "bin")
        text = """
import os
with dag:
    @task
    def add(params=None, ti=None): return [os.getpid() == own, params["a"], ti.try_number]
    add()
own = os.getpid()
run = dag.test(logical_date=datetime(2026, 1, 31), run_conf={"a": "b"})
print(run.state == DagRunState.SUCCESS, run.logical_date.day, run.conf)
print(run.get_task_instance("add").xcom_pull(), run.get_task_instances()[0])
"""
        code, out, err = self.run_file(text)
        self.assertEqual(code, 0, err)
        self.assertRegex(out, r"^True 31 \{'a': 'b'\}\n\[True, 'b', 1\] <TaskInstance: t manual__.* \[success\]>$")
        self.assertIn("add  success\n", err)
        self.assertEqual(self.arguments(program), ["--home", str(self.home), "dags", "plan", str(self.dag_file)])

    def test_the_run_of_a_failed_task_is_returned(self):
        self.add_program(self.home / "bin")
        text = """
import signal
before = signal.getsignal(signal.SIGTERM)
with dag:
    @task
    def fails(): raise ValueError("no data")
    fails()
for pattern in None, "f.*":
    run = dag.test(mark_success_pattern=pattern)
    print(run.state, run.get_task_instance("fails").state, run.logical_date.year >= 2026, signal.getsignal(signal.SIGTERM) == before)
print(dag.test(logical_date=None).logical_date)
"""
        code, out, err = self.run_file(text)
        self.assertEqual((code, out), (0, "failed failed True True\nsuccess success True True\nNone\n"), err)
        self.assertIn("ValueError: no data", err)

    def test_ctrl_c_in_a_task_ends_dag_test(self):
        self.add_program(self.home / "bin")
        text = """
with dag:
    @task
    def t2(): raise KeyboardInterrupt
    t2()
try:
    dag.test()
except KeyboardInterrupt:
    print("interrupted")
"""
        self.assertEqual(self.run_file(text)[1], "interrupted\n")

    def test_dag_test_works_in_a_thread_and_leaves_handlers_as_they_are(self):
        self.add_program(self.home / "bin")
        text = """
import concurrent.futures, signal
before = signal.getsignal(signal.SIGTERM)
with dag:
    @task(execution_timeout=__import__("datetime").timedelta(minutes=1))
    def works(): return 1
    works()
with concurrent.futures.ThreadPoolExecutor() as pool:
    run = pool.submit(dag.test).result()
print(run.state, run.get_task_instances(state="failed"), run.get_task_instance("t").xcom_pull(task_ids=["works", "t"]))
print(signal.getsignal(signal.SIGTERM) == before)
"""
        code, out, err = self.run_file(text)
        self.assertEqual((code, out), (0, "success [] [1, None]\nTrue\n"), err)

    def test_dag_test_ends_beside_a_process_that_a_task_leaves(self):
        self.add_program(self.home / "bin")
        text = """
import os, signal, sys
with dag:
    @task
    def leaves():
        pid = os.fork()
        if pid == 0:
            # Holds the pipe of the planner until the run has ended.
            os.close(1)
            os.close(2)
            signal.pause()
        return pid
    leaves()
run = dag.test()
os.kill(run.get_task_instance("leaves").xcom_pull(), signal.SIGKILL)
print(run.state)
"""
        code, out, err = self.run_file(text)
        self.assertEqual((code, out), (0, "success\n"), err)

    def test_dag_test_masks_secrets(self):
        self.add_program(self.home / "bin")
        text = """
with dag:
    @task
    def reads(): print("read", Variable.get("api_password"))
    reads()
dag.test()
print("after")
"""
        code, out, err = self.run_file(text, AIRFLOW_VAR_API_PASSWORD="c0nfidential")
        self.assertEqual(code, 0, err)
        self.assertNotIn("c0nfidential", out + err)
        self.assertIn("read ***", out + err)
        self.assertIn("after", out)

    def test_dag_test_applies_the_settings_of_the_project(self):
        self.add_program(self.home / "bin", settings={"file": "leoflow.yaml", "defaults": {"owner": "ann"}})
        self.assertEqual(self.run_file("dag.test()\nprint(dag.owner)")[1], "ann\n")

    def test_dag_test_uses_the_program_on_the_path_or_says_that_there_is_none(self):
        (self.folder / "other").mkdir()
        program = self.add_program(self.folder / "other")
        self.assertEqual(self.run_file("dag.test()", PATH=f"{self.folder}/other:/usr/bin:/bin")[0], 0)
        self.assertEqual(self.arguments(program)[:3], ["--home", str(self.home), "dags"])
        code, _, err = self.run_file("dag.test()", PATH="/nowhere")
        self.assertEqual(code, 1)
        self.assertIn("DAG.test() needs the program leoflow, which is not in the folders of PATH (/nowhere)", err)

    def test_a_failure_of_the_command_is_an_error(self):
        self.add_program(self.home / "bin")
        code, _, err = self.run_file("dag.test()", ERROR="1")
        self.assertEqual(code, 1)
        self.assertRegex(err, "AirflowException: `.*leoflow --home .* dags plan .*` failed with exit code 3")

    def test_arguments_of_dag_test_that_make_no_sense_are_refused(self):
        for argument in "run_after=datetime(2026, 1, 1)", "conn_file_path='c'", "variable_file_path='v'", "use_executor=True":
            _, _, err = self.run_file(f"dag.test({argument})")
            self.assertIn(f"the argument {argument.partition('=')[0]} of DAG.test()", err)
            self.assertIn("is not supported by Leoflow", err)

    def test_a_task_of_dag_test_cannot_call_it(self):
        self.add_program(self.home / "bin")
        _, _, err = self.run_file("with dag:\n    @task\n    def inner(): dag.test()\n    inner()\ndag.test()")
        self.assertIn("DAG.test() in a task of DAG.test() (of the DAG 'sales') is not supported", err)

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


class LinkedVenv(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def test_commands_without_an_entry_point_are_links(self):
        programs = {name: f"/environment/bin/{name}" for name in ("tool", "linter", "own")}
        (self.folder / "own").write_text("")
        (self.folder / "gone").symlink_to("/environment/bin/gone")
        entries = importlib.metadata.EntryPoints([importlib.metadata.EntryPoint("tool", "tool.main:run", "console_scripts")])
        names = virtual_env.write_scripts(str(self.folder), ["gone"], entries, programs)
        self.assertEqual(names, ["linter", "tool"])
        self.assertEqual(os.readlink(self.folder / "linter"), "/environment/bin/linter")
        self.assertIn("from tool.main import run", (self.folder / "tool").read_text())
        self.assertEqual(sorted(os.listdir(self.folder)), ["linter", "own", "tool"])

    def test_a_failed_write_leaves_no_partial_file(self):
        (self.folder / "marker").mkdir()
        with self.assertRaises(IsADirectoryError):
            virtual_env.write(str(self.folder / "marker"), "text")
        self.assertEqual(os.listdir(self.folder), ["marker"])
