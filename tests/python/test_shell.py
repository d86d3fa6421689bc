"""The database that `leoflow env shell` creates."""

import contextlib
import io
import os
import sys
import tempfile
import unittest
import unittest.mock
from pathlib import Path

from leoflow.entry import shell

MAIN = """
import os, sys
path = os.environ["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"].removeprefix("sqlite:///")
with open(path, "w") as file:
    file.write(" ".join(sys.argv[1:]))
print("as told")
sys.exit(int(os.environ.get("EXIT_CODE", 0)))
"""


class Database(unittest.TestCase):
    """The database that Airflow's `dag.test()` needs. `airflow` is a fake package."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        (self.folder / "airflow" / "migrations").mkdir(parents=True)
        for name, text in {"__init__.py": "", "__main__.py": MAIN, "migrations/__init__.py": ""}.items():
            (self.folder / "airflow" / name).write_text(text)
        self.home = self.folder / "home"
        variables = {"PYTHONPATH": str(self.folder), "_AIRFLOW_PROCESS_CONTEXT": "client", shell.SETTING: "postgres://real/airflow"}
        for patch in (unittest.mock.patch.dict(os.environ, variables), unittest.mock.patch.dict(sys.modules),
                      unittest.mock.patch.object(sys, "path", [str(self.folder), *sys.path])):
            patch.start()
            self.addCleanup(patch.stop)
        for name in [name for name in sys.modules if name.partition(".")[0] == "airflow"]:
            del sys.modules[name]
        # Removes the finder of the small package, which precedes the fake package.
        patch = unittest.mock.patch.object(sys, "meta_path", [finder for finder in sys.meta_path if type(finder).__name__ != "_Modules"])
        patch.start()
        self.addCleanup(patch.stop)

    def use(self):
        with contextlib.redirect_stderr(io.StringIO()) as said:
            shell.use_database(str(self.home))
        return said.getvalue()

    def test_is_created_once_below_airflow_home(self):
        self.assertIn("Creating the database", self.use())
        self.assertEqual((self.home / "airflow.db").read_text(), "db migrate")
        self.assertEqual(os.environ[shell.SETTING], f"sqlite:///{self.home}/airflow.db")
        self.assertNotIn("_AIRFLOW_PROCESS_CONTEXT", os.environ)
        self.assertEqual((self.use(), os.listdir(self.home)), ("", ["airflow.db"]))

    def test_a_failure_is_a_warning_and_tried_again(self):
        with unittest.mock.patch.dict(os.environ, EXIT_CODE="1"):
            self.assertIn("warning: `airflow db migrate` failed, and dag.test() will fail, too:\nas told\n", self.use())
        self.assertFalse((self.home / "airflow.db").exists())
        self.use()
        self.assertTrue((self.home / "airflow.db").exists())

    def test_the_sdk_alone_has_no_database(self):
        (self.folder / "airflow" / "migrations" / "__init__.py").unlink()
        (self.folder / "airflow" / "migrations").rmdir()
        self.assertEqual((self.use(), self.home.exists()), ("", False))
