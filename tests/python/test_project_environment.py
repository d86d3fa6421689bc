"""A project's `.env`, loaded before anything is imported, in a new process and in a fork of a warm Python."""

import ctypes
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
SET_CHILD_SUBREAPER = 36
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
    (folder / "src/inner.py").write_text("")
    (folder / "dag.py").write_text(textwrap.dedent(DAG))
    (folder / ".env").write_text(textwrap.dedent(VARIABLES))
    return {"path": str(folder / "dag.py"), "roots": [str(folder)], "work_in": [str(folder)]}


def environment():
    return {"PATH": os.environ["PATH"], "LEOFLOW_TASK": "_" * len(MARK)}


def python(job, options, passed, *flags):
    """Starts the entry point with these descriptors, numbered from 3."""
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


def become_subreaper():
    ctypes.CDLL(None).prctl(SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def parse_in_fork(zygote, options):
    """Parses a file in a fork of the warm Python at the other end."""
    reader, writer = os.pipe()
    request = json.dumps({"id": 1, "job": "parse", "mark": MARK, "options": {**options, "descriptor": 3}})
    with open(os.devnull, "wb") as output:
        socket.send_fds(zygote, [request.encode()], [output.fileno(), writer])
    os.close(writer)
    answer = json.loads(zygote.recv(65536))
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

    def test_in_a_new_process(self):
        with tempfile.TemporaryDirectory() as folder:
            reader, writer = os.pipe()
            started = python("parse", {**project(Path(folder)), "descriptor": 3}, [writer])
            os.close(writer)
            self.check(read_answer(reader))
            started.wait()

    @unittest.skipUnless(sys.platform == "linux", "a warm Python needs Linux")
    def test_in_a_fork_of_a_warm_python(self):
        become_subreaper()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with tempfile.TemporaryDirectory() as folder, ours:
            started = python("zygote", {"folder": folder, "preload": []}, [theirs.fileno(), theirs.fileno()])
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

    def test_comments_and_quotes(self):
        from leoflow.entry import dotenv

        text = "\ufeffA=1\n# A=2\nexport B = two # not this\nC='a # b'\nE='open\nG=  # none\nH=val\t# tab\nI=#x#y #z\n"
        values = {"A": "1", "B": "two", "C": "a # b", "E": "'open", "G": "", "H": "val", "I": "#x#y"}
        self.assertEqual(dotenv.parse(text.removeprefix("\ufeff")), values)

    def test_an_invalid_setting_is_an_error(self):
        from leoflow.authoring.operators.arguments import RETRIES
        from leoflow.common.exceptions import AirflowException

        with unittest.mock.patch.dict(os.environ, {RETRIES.variable: "many"}), self.assertRaisesRegex(AirflowException, "RETRIES: 'many'"):
            RETRIES.value()
