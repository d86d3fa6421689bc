"""Hints for errors of the user's code."""

import shutil
import sys
import tempfile
import unittest
import unittest.mock
from pathlib import Path

from leoflow.common import local_modules
from leoflow.common.hints import airflow_2, commands, packages
from leoflow.common.hints.error_hint import hint


def fails(text):
    """Runs `text` as a file; returns its error and the hint."""
    with tempfile.TemporaryDirectory() as folder:
        return fails_in(Path(folder), text)


def fails_in(folder, text):
    """Runs `text` as the project's file `file.py`; returns its error and the hint."""
    with unittest.mock.patch.object(sys, "path", [str(folder), *sys.path]):
        path = folder / "file.py"
        path.write_text(text)
        try:
            exec(compile(text, str(path), "exec"), {})
        except Exception as error:
            return error, hint(error)
    raise AssertionError("the code does not fail")


class TestOwnModules(unittest.TestCase):
    """The hint for a module of the project does not suggest installing a package."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name).resolve()

    def test_a_module_outside_of_the_search_path(self):
        (self.folder / "code" / "acme").mkdir(parents=True)
        (self.folder / "code" / "acme" / "tables.py").touch()
        _, found = fails_in(self.folder, "from acme.tables import load")
        self.assertIn(f"acme was found at code/acme, which is in no folder that is searched: the module search path of this "
                      f"file has {self.folder}.\nImport it as `code.acme`", found)
        self.assertIn(f".env: PYTHONPATH={self.folder}/code", found)
        self.assertNotIn("leoflow add", found)

    def test_a_file_in_a_folder_whose_name_is_no_identifier(self):
        (self.folder / "my-lib").mkdir()
        (self.folder / "my-lib" / "acme.py").touch()
        _, found = fails_in(self.folder, "import acme")
        self.assertIn("acme was found at my-lib/acme.py", found)
        self.assertIn(f"\nAdd a line to the project's .env: PYTHONPATH={self.folder}/my-lib", found)

    def test_the_project_takes_precedence_over_the_workspace(self):
        project = self.folder / "project"
        for folder in (project / "libs" / "acme" / "src" / "acme", self.folder / "other" / "acme"):
            folder.mkdir(parents=True)
            (folder / "tables.py").touch()
        with unittest.mock.patch.object(sys, "path", [str(self.folder), *sys.path]):
            _, found = fails_in(project, "import acme.tables")
        self.assertIn("acme was found at libs/acme/src/acme, ", found)

    def test_the_import_folder_itself(self):
        folder = self.folder / "dags"
        folder.mkdir()
        self.assertIn(f"dags is the folder {folder} itself", fails_in(folder, "from dags.acme import load")[1])

    def test_names_of_own_code_are_never_packages_to_install(self):
        for name in ("include", "common", "operators"):
            found = fails_in(self.folder, f"import {name}.thing")[1]
            self.assertIn(f"No folder of the project has a module {name}", found)
            self.assertNotIn("leoflow add", found)

    def test_a_folder_without_python_is_no_module(self):
        (self.folder / "data" / "acme").mkdir(parents=True)
        self.assertIn("`leoflow add acme`", fails_in(self.folder, "import acme")[1])


class TestHiddenModules(unittest.TestCase):
    """The hint for a module of the project that an installed one of the same name hides."""

    def setUp(self):
        holder = tempfile.TemporaryDirectory()
        self.addCleanup(holder.cleanup)
        self.workspace = Path(holder.name).resolve()
        self.project = self.workspace / "sales"
        installed = self.workspace.parent / f"{self.workspace.name}-site-packages"
        (installed / "acme_tools").mkdir(parents=True)
        self.addCleanup(shutil.rmtree, installed)
        (installed / "acme_tools" / "__init__.py").touch()
        (self.project / "dags").mkdir(parents=True)
        (self.project / "plugins" / "calendar").mkdir(parents=True)
        (self.project / "dags" / "acme_tools.py").write_text("def helper(): pass")
        (self.project / "plugins" / "calendar" / "days.py").touch()
        roots = [str(self.project), str(self.workspace)]
        path = [*roots, str(installed), *sys.path, str(self.project / "dags"), str(self.project / "plugins")]
        for patcher in (unittest.mock.patch.object(sys, "path", path), unittest.mock.patch.object(local_modules, "_is_entered", True)):
            patcher.start()
            self.addCleanup(patcher.stop)
        self.addCleanup(sys.modules.pop, "acme_tools", None)

    def test_an_installed_package_hides_a_file_of_dags(self):
        for text in ("from acme_tools import helper", "import acme_tools.db", "import acme_tools\nacme_tools.helper()"):
            _, found = fails_in(self.project, text)
            self.assertIn(f"{self.project}/dags/acme_tools.py is hidden by acme_tools (", found, text)
            self.assertIn("Import it as `dags.acme_tools`, or give it a name of its own", found)

    def test_a_module_of_python_hides_a_folder_of_plugins(self):
        _, found = fails_in(self.project, "from calendar.days import holidays")
        self.assertIn(f"{self.project}/plugins/calendar is hidden by Python's own module calendar (", found)
        self.assertIn("as `plugins.calendar`", found)

    def test_a_missing_name_of_another_package_has_no_such_hint(self):
        for text in ("from json import nothing", "import json\njson.nothing", "None.x"):
            self.assertIsNone(fails_in(self.project, text)[1])


class TestPathsOfImages(unittest.TestCase):
    def test_name_the_file_of_the_project(self):
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "sql").mkdir()
            Path(folder, "sql/query.sql").touch()
            for path in ("/opt/airflow/sql/query.sql", "/usr/local/airflow/dags/sql/query.sql", "/home/airflow/gcs/dags/sql/query.sql"):
                self.assertIn("pathlib.Path(__file__).parent / 'sql/query.sql'", fails_in(Path(folder), f"open({path!r})")[1])
            self.assertIn("No folder of the project has dags/none.sql", fails_in(Path(folder), "open('/opt/airflow/dags/none.sql')")[1])
            self.assertIsNone(fails_in(Path(folder), "open('/opt/other')")[1])


class TestRemovedInAirflow3(unittest.TestCase):
    def test_modules(self):
        for line, advice in {
            "from airflow.operators.python_operator import PythonOperator": "use airflow.providers.standard.operators.python",
            "from airflow.operators.dummy import DummyOperator": "use airflow.providers.standard.operators.empty.EmptyOperator",
            "import airflow.contrib.operators.ssh_operator": "`leoflow add apache-airflow-providers-ssh`",
            "from airflow.contrib.hooks import gcp_pubsub_hook": "use airflow.providers.google.cloud.hooks.pubsub",
            "from airflow.contrib.hooks.gcs_hook import X": "`leoflow add apache-airflow-providers-google`",
            "from airflow.operators.postgres_operator import PostgresOperator": "sql.operators.sql.SQLExecuteQueryOperator",
            "from airflow.datasets import Dataset": "airflow.datasets.Dataset was removed in Airflow 3; use airflow.sdk.Asset",
            "from airflow.utils.dates import days_ago": "airflow.utils.dates.days_ago was removed in Airflow 3; use a fixed",
        }.items():
            with self.subTest(line):
                error, _ = fails(line)
                self.assertIsInstance(error, ImportError)
                self.assertIn(advice, str(error))
                self.assertNotIn("leoflow add apache-airflow`", str(error))

    def test_with_the_sdk_of_airflow(self):
        missing = ModuleNotFoundError("No module named 'airflow.contrib'", name="airflow.contrib")
        self.assertIn("airflow.contrib was removed in Airflow 3", hint(missing))
        text = "cannot import name 'chain' from 'airflow.utils.helpers' (x.py)"
        self.assertEqual(hint(ImportError(text, name="airflow.utils.helpers")),
                         "airflow.utils.helpers.chain was removed in Airflow 3; use airflow.sdk.chain")

    def test_arguments(self):
        text = "from airflow.sdk import DAG\nDAG('x', schedule_interval='@daily', concurrency=1)"
        self.assertEqual(fails(text)[1], "Airflow 3 has no argument `schedule_interval`; use `schedule`\n"
                                         "Airflow 3 has no argument `concurrency`; use `max_active_tasks`")
        # The wording of Airflow's SDK.
        text = "DAG.__init__() got an unexpected keyword argument 'schedule_interval'"
        self.assertIn("use `schedule`", hint(TypeError(text)))
        text = ("from airflow.providers.standard.operators.python import PythonOperator\n"
                "PythonOperator(task_id='a', python_callable=print, provide_context=True)")
        self.assertIn("`provide_context`; remove it", fails(text)[1])
        self.assertIsNone(fails("def load(): pass\nload(concurrency=1)")[1])

    def test_context_keys(self):
        self.assertIn("use `logical_date`", fails("def load(execution_date): pass\nload()")[1])
        self.assertIn("use `data_interval_end | ds`", fails("{}['next_ds']")[1])
        self.assertIsNone(fails("{}['city']")[1])

    def test_the_replacements_of_the_small_package_exist(self):
        from leoflow.names import MODULES

        for module, names in {**airflow_2.moved(), **airflow_2.moved_names()}.items():
            for old, successor in names.items():
                with self.subTest(f"{module}.{old}"):
                    new_module, _, new = successor.rpartition(".")
                    if new_module in MODULES and new != "ExternalTaskSensorLink":
                        self.assertIn(new, MODULES[new_module])

    def test_a_misspelt_name(self):
        self.assertEqual(fails("from airflow.sdk import DAGG")[1], "airflow.sdk has no DAGG; did you mean DAG?")


class TestMissingPackages(unittest.TestCase):
    def test_packages_of_modules(self):
        for line, added in [
            ("import duckdb", "duckdb"), ("import sklearn.linear_model", "scikit-learn"),
            ("import googleapiclient.discovery", "google-api-python-client"),
            ("from google.cloud import bigquery, storage", "google-cloud-bigquery google-cloud-storage"),
            ("from google.cloud.bigquery import Client", "google-cloud-bigquery"), ("import dbt.version", "dbt-core"),
            ("import snowflake.connector", "snowflake-connector-python"), ("import azure.storage.blob", "azure-storage-blob"),
            ("import pyspark.sql", "pyspark"), ("from databricks import sql", "databricks-sql-connector"), ("import wget", "wget"),
            ("import bs4", "beautifulsoup4"), ("import sagemaker", "sagemaker"),
        ]:
            name = line.split()[1].partition(".")[0]
            names = packages.names_in(line, line.split()[1])
            with self.subTest(line), unittest.mock.patch.object(packages, "imported_names", return_value=names):
                self.assertIn(f"`leoflow add {added}`", hint(ModuleNotFoundError("no", name=name)))

    def test_an_unknown_module_is_no_package_of_that_name(self):
        self.assertIn("which is not known here:\n`leoflow add PACKAGE`", fails("import not_there.inside")[1])

    def test_a_module_of_a_namespace_that_is_installed(self):
        with unittest.mock.patch.dict(sys.modules, {"google": sys, "google.cloud": sys, "yaml": sys}):
            self.assertIn("`leoflow add google-cloud-bigquery`", hint(ModuleNotFoundError("no", name="google.cloud.bigquery")))
            self.assertIsNone(hint(ModuleNotFoundError("no", name="yaml.renamed")))

    def test_a_home_that_is_not_the_default(self):
        with unittest.mock.patch.object(commands, "_program", commands._program):
            commands.use_home("--home '/srv/my home'")
            self.assertIn("`leoflow --home '/srv/my home' add PACKAGE`", fails("import not_there")[1])

    def test_a_package_of_the_newest_version(self):
        from leoflow.common.hints import error_hint

        newer = {"exists": True, "dag_id": "a b", "run_id": "manual__1"}
        with unittest.mock.patch.object(error_hint, "find_newer_package", {"not-there": newer}.get):
            self.assertEqual(fails("import not_there")[1],
                             "not_there is in the newest version of a b, but this run keeps the version that it began with. "
                             "Rerun it: leoflow runs clear 'a b' manual__1 --only-failed --run-on-latest-version")
            self.assertIn("`leoflow add PACKAGE`", fails("import nor_there")[1])

    def test_a_provider(self):
        for module, provider in [("snowflake", "snowflake"), ("microsoft.azure", "microsoft-azure"), ("apache.spark", "apache-spark")]:
            error = ModuleNotFoundError("no", name=f"airflow.providers.{module}.hooks")
            self.assertIn(f"`leoflow add apache-airflow-providers-{provider}`", hint(error))

    def test_no_hint_for_a_missing_module_of_an_installed_provider(self):
        with unittest.mock.patch.dict(sys.modules, {"airflow.providers.amazon": sys, "airflow.providers.amazon.aws": sys}):
            self.assertIsNone(hint(ModuleNotFoundError("no", name="airflow.providers.amazon.aws.renamed")))

    def test_every_hint_names_the_same_files(self):
        from leoflow.common.exceptions import unsupported_name

        hints = [fails("import not_there")[1], str(unsupported_name("airflow.utils.email")),
                 hint(ModuleNotFoundError("no", name="airflow.providers.http.hooks"))]
        for text in hints:
            self.assertRegex(text, r"`leoflow add [\w-]+` in the project's folder, or in its leoflow.yaml\n    dependencies: \[")
            self.assertIn("requirements.txt, pyproject.toml or `# /// script`", text)

    def test_the_command_names_the_project(self):
        with unittest.mock.patch.object(local_modules, "_project", None):
            local_modules.enter_project(["/w/my orders/dags", "/w/my orders", "/w"])
            self.assertIn("`leoflow add PACKAGE --project 'my orders'`, or in its leoflow.yaml", fails("import not_there")[1])
            local_modules.enter_project(["/w"])
            self.assertIn("`leoflow add PACKAGE` in the project's folder", fails("import not_there")[1])

    def test_names_declarations_that_are_not_read(self):
        text = "/w/p/Pipfile: its [packages] is not read; run in its folder: pipenv requirements > requirements.txt"
        with unittest.mock.patch.object(packages, "unread", [text]):
            for found in (fails("import not_there")[1], hint(ModuleNotFoundError("no", name="airflow.providers.http.hooks"))):
                self.assertTrue(found.endswith(f"\n{text}"), found)

    def test_follows_the_cause_of_an_error(self):
        text = "try:\n    import not_there\nexcept ImportError as error:\n    raise ValueError('no') from error"
        self.assertIn("`leoflow add PACKAGE`", fails(text)[1])

    def test_no_hint_for_other_errors(self):
        for error in [ValueError("no"), ModuleNotFoundError("no", name="airflow.sdk"), ModuleNotFoundError("no", name="json.nothing")]:
            self.assertIsNone(hint(error))
