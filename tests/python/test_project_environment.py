"""Loading a project's `.env` before any import, in a new process and in a fork of a warm Python."""

import errno
import json
import os
import socket
import subprocess
import sys
import tempfile
import textwrap
import unittest
import unittest.mock
from pathlib import Path

import leoflow

ENTRY = Path(leoflow.__file__).parent.parent / "_leoflow_entry.py"
MARK = "parse-" + "0" * 18
DAG = """
    import time

    import inner
    from airflow.sdk import DAG, task

    assert time.localtime(0).tm_hour == 9

    with DAG("d"):
        @task
        def t(): ...

        t()
"""
VARIABLES = """
    AIRFLOW__CORE__DEFAULT_TASK_RETRIES=3
    AIRFLOW__CORE__MAX_ACTIVE_TASKS_PER_DAG=2
    PYTHONPATH=src:other
    TZ=Asia/Tokyo
"""


def project(folder):
    (folder / "src").mkdir()
    (folder / "src/inner.py").write_text("with open(__file__[:-8] + 'settings.txt', 'r+'): pass\n")
    (folder / "src/settings.txt").write_text("")
    (folder / "dag.py").write_text(textwrap.dedent(DAG))
    (folder / ".env").write_text(textwrap.dedent(VARIABLES))
    return {"path": str(folder / "dag.py"), "roots": [str(folder)], "work_in": [str(folder)]}


def environment():
    return {"PATH": os.environ["PATH"], "LEOFLOW_TASK": "_" * len(MARK)}


def python(job, options, passed, *flags):
    """Starts the entry point; it inherits these descriptors as 3, 4, …."""
    duplicates = [os.dup(descriptor) for descriptor in passed]

    def place_descriptors():
        for number, descriptor in enumerate(duplicates, 3):
            os.dup2(descriptor, number)

    arguments = [sys.executable, *flags, "-E", "-X", "utf8", str(ENTRY), job, json.dumps(options)]
    numbers = range(3, 3 + len(duplicates))
    started = subprocess.Popen(arguments, env=environment(), preexec_fn=place_descriptors, pass_fds=[*duplicates, *numbers])  # noqa: PLW1509
    for descriptor in duplicates:
        os.close(descriptor)
    return started


def read_answer(descriptor):
    with os.fdopen(descriptor, "rb") as pipe:
        return json.loads(pipe.read())


def parse_in_fork(zygote, options):
    """Parses a file in a fork of the warm Python behind the socket `zygote`."""
    reader, writer = os.pipe()
    their_gate, gate = os.pipe()
    request = json.dumps({"id": 1, "job": "parse", "mark": MARK, "options": {**options, "descriptor": 3}})
    with open(os.devnull, "wb") as output:
        socket.send_fds(zygote, [request.encode()], [their_gate, output.fileno(), output.fileno(), writer])
    os.close(writer)
    os.close(their_gate)
    answer = json.loads(zygote.recv(65536))
    os.write(gate, b"1")
    os.close(gate)
    found = read_answer(reader)
    os.waitpid(answer["pid"], 0)
    return found


class TestProjectEnvironment(unittest.TestCase):
    def check(self, found):
        self.assertIsNone(found["error"])
        dag, = found["dags"]
        self.assertEqual((dag["tasks"][0]["retries"], dag["max_active_tasks"]), (3, 2))
        self.assertTrue(any(name.endswith("src/inner.py") for name in found["sources"]), found["sources"])
        self.assertTrue(any(name.endswith(".env") for name in found["reads"]), found["reads"])
        self.assertTrue(any(name.endswith("src/settings.txt") for name in found["reads"]), "opened for reading and writing")

    def test_in_a_new_process(self):
        with tempfile.TemporaryDirectory() as folder:
            reader, writer = os.pipe()
            started = python("parse", {**project(Path(folder)), "descriptor": 3}, [writer])
            os.close(writer)
            self.check(read_answer(reader))
            started.wait()

    @unittest.skipUnless(sys.platform == "linux", "a warm Python needs Linux")
    def test_in_a_fork_of_a_warm_python(self):
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with tempfile.TemporaryDirectory() as folder, ours:
            started = python("zygote", {"folder": folder, "preload": []}, [theirs.fileno()])
            theirs.close()
            self.assertTrue(json.loads(ours.recv(65536))["ready"])
            self.check(parse_in_fork(ours, project(Path(folder))))
        started.wait()

    def test_a_dag_file_named_like_a_package_that_it_uses(self):
        with tempfile.TemporaryDirectory() as folder:
            dags, support = Path(folder, "p/dags"), Path(folder, "site-packages")
            for created in (dags / "own", support / "sh_lib"):
                created.mkdir(parents=True)
            (support / "sh_lib/__init__.py").write_text("NAME = 'installed'")
            (dags / "own/__init__.py").write_text("NAME = 'own'")
            text = "import own, sh_lib\nfrom airflow.sdk import DAG\ndag = DAG(f'{sh_lib.NAME}_{own.NAME}')\n"
            (dags / "sh_lib.py").write_text(text)
            roots = [str(dags), str(dags.parent), folder]
            reader, writer = os.pipe()
            options = {"path": str(dags / "sh_lib.py"), "roots": roots, "work_in": roots[1:], "support": str(support)}
            started = python("parse", {**options, "descriptor": 3}, [writer])
            os.close(writer)
            found = read_answer(reader)
            started.wait()
        self.assertIsNone(found["error"])
        self.assertEqual([dag["dag_id"] for dag in found["dags"]], ["installed_own"])

    def test_the_format_of_env_files(self):
        from leoflow.entry.env_file import EnvFile

        # `dotenv.rs` has a test with the same cases.
        for case in json.loads(Path(__file__).with_name("env_files.json").read_text()):
            with self.subTest(case["text"]):
                file = EnvFile(case["text"].removeprefix("\ufeff"), lambda _: None)
                lines = [line for line, _ in file.problems]
                found = {"variables": file.variables, "problem_lines": lines, "is_cut": file.is_cut}
                self.assertEqual({"text": case["text"], **found}, case)

    def parsed_with(self, raw):
        """Returns the result of parsing a file beside a `.env` with these bytes, or beside an unreadable `.env` for
        None."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "dag.py")
            path.write_text("import os\nfrom airflow.sdk import DAG\nDAG('d', description=os.environ.get('KEY')).__enter__()\n")
            if raw is None:
                # Not even root can open a symbolic link to itself.
                Path(folder, ".env").symlink_to(".env")
            else:
                Path(folder, ".env").write_bytes(raw)
            reader, writer = os.pipe()
            started = python("parse", {"path": str(path), "roots": [folder], "work_in": [folder], "descriptor": 3}, [writer])
            os.close(writer)
            found = read_answer(reader)
            started.wait()
        return {name: json.loads(json.dumps(found[name]).replace(folder, "")) for name in ("dags", "error", "warnings")}

    def test_lines_that_cannot_be_read_are_named(self):
        found = self.parsed_with(b"nothing\nKEY='a\nb'\n")
        self.assertEqual((found["dags"][0]["description"], found["error"]), ("a\nb", None))
        self.assertEqual(found["warnings"], ["/.env:1 is not NAME=value, and is ignored"])
        # PowerShell's encoding.
        self.assertEqual(self.parsed_with("KEY=é\r\n".encode("utf-16"))["dags"][0]["description"], "é")
        for raw, error in ((b"A=1\nKEY='a\n", "/.env:2 opens a ' that is closed nowhere; KEY is not set"),
                           ("A=1\nKEY=é".encode("latin-1"),
                            "/.env:2 is not valid UTF-8; none of its variables is set. Save the file as UTF-8."),
                           (b"A=" + b"a" * 300_000, "/.env is larger than 256 KiB; none of its variables is set")):
            found = self.parsed_with(raw)
            self.assertEqual((found["dags"], found["error"]), ([], error))

    def test_a_file_that_cannot_be_opened_is_a_warning(self):
        found = self.parsed_with(None)
        self.assertEqual((len(found["dags"]), found["error"]), (1, None))
        warning = f"/.env cannot be read: {os.strerror(errno.ELOOP)}; none of its variables is set"
        self.assertEqual(found["warnings"], [warning])

    def test_a_variable_that_extends_itself_is_extended_once(self):
        # LD_LIBRARY_PATH makes the process execute itself again.
        raw = b"PATH=/opt/own:${PATH}\nLD_LIBRARY_PATH=/opt/lib:${LD_LIBRARY_PATH:-}\nKEY=${PATH} ${LD_LIBRARY_PATH}\n"
        description = self.parsed_with(raw)["dags"][0]["description"]
        self.assertEqual(description, f"/opt/own:{os.environ['PATH']} /opt/lib:")

    def test_python_is_the_python_of_the_project(self):
        code = ("import os, subprocess; from leoflow.entry import dotenv; dotenv.own_python_first()\n"
                "path = os.environ['PATH']; dotenv.own_python_first(); assert os.environ['PATH'] == path\n"
                "subprocess.run(['python', '-c', 'import os, sys; print(os.path.realpath(sys.executable))'], check=True)")
        with tempfile.TemporaryDirectory() as folder:
            python3, other = Path(folder, "python3"), Path(folder, "python")
            python3.symlink_to(os.path.realpath(sys._base_executable))
            other.write_text("#!/bin/sh\necho other\n")
            for mode in (0o755, 0o644):
                other.chmod(mode)
                variables = {"PATH": f"{folder}:/usr/bin:/bin", "PYTHONPATH": str(ENTRY.parent)}
                printed = subprocess.check_output([python3, "-c", code], env=variables, text=True)
                self.assertEqual(printed.strip(), os.path.realpath(python3))

    def test_the_command_airflow_of_the_instance_is_first_in_path(self):
        from leoflow.entry import dotenv

        with tempfile.TemporaryDirectory() as package, unittest.mock.patch.dict(os.environ, PATH="/usr/bin:/bin", LEOFLOW_HOME="/other"):
            commands = os.path.join(package, "commands")
            os.makedirs(commands)
            with unittest.mock.patch.multiple(dotenv, PACKAGE=package, COMMANDS=commands):
                for _ in range(2):
                    dotenv.own_commands_first()
                    self.assertEqual(os.environ["PATH"].split(":")[0], commands)
                    self.assertEqual(os.environ["PATH"].count(commands), 1)
            self.assertEqual(os.environ["LEOFLOW_HOME"], "/other")

    def test_an_invalid_setting_is_an_error(self):
        from leoflow.authoring.operators.arguments import RETRIES
        from leoflow.common.exceptions import AirflowException

        with unittest.mock.patch.dict(os.environ, {RETRIES.variable: "many"}), self.assertRaisesRegex(AirflowException, "RETRIES: 'many'"):
            RETRIES.value()
