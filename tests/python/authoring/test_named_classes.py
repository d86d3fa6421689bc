"""Classes that Airflow's settings name: finding them, and the error for a class that cannot be imported."""

import os
import sys
import tempfile
import textwrap
import unittest
import unittest.mock
from pathlib import Path

from leoflow.common.exceptions import AirflowException
from leoflow.sdk import named_classes

BACKEND, LOGGING = "AIRFLOW__CORE__XCOM_BACKEND", "AIRFLOW__LOGGING__LOGGING_CONFIG_CLASS"


class TestNamedClasses(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        variables = {"AIRFLOW_CONFIG": str(self.folder / "airflow.cfg")}
        others = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW_")}
        self.enterContext(unittest.mock.patch.dict(os.environ, {**others, **variables}, clear=True))
        self.enterContext(unittest.mock.patch.object(sys, "path", [folder.name, *sys.path]))

    def enterContext(self, context):
        value = context.__enter__()
        self.addCleanup(context.__exit__, None, None, None)
        return value

    def write(self, name, text):
        (self.folder / name).write_text(textwrap.dedent(text))

    def test_the_environment_overrides_the_file(self):
        self.write("airflow.cfg", """
            [core]
            xcom_backend = mine.OfTheFile
            [logging]
            logging_config_class = airflow.config_templates.airflow_local_settings.DEFAULT_LOGGING_CONFIG
            [secrets]
            backend = airflow.providers.vault.VaultBackend
        """)
        secrets = {("secrets", "backend"): "airflow.providers.vault.VaultBackend"}
        self.assertEqual(named_classes.named(), {("core", "xcom_backend"): "mine.OfTheFile", **secrets})
        os.environ[BACKEND] = " mine.OfTheProject "
        self.assertEqual(named_classes.named(), {("core", "xcom_backend"): "mine.OfTheProject", **secrets})
        os.environ[BACKEND] = ""
        self.assertEqual(named_classes.named(), secrets)

    def test_a_warm_python_hides_the_settings(self):
        self.write("airflow.cfg", "[core]\nxcom_backend = mine.OfTheFile\n")
        os.environ[LOGGING] = "mine.LOGGING"
        with named_classes.hide_settings() as names_a_class:
            self.assertTrue(names_a_class)
            self.assertEqual((os.environ[BACKEND], os.environ[LOGGING]), ("", ""))
            self.assertEqual(named_classes.named(), {})
        self.assertEqual((os.environ.get(BACKEND), os.environ[LOGGING]), (None, "mine.LOGGING"))

    def test_an_import_failure_names_the_setting(self):
        self.write("named_for_tests.py", "LOGGING, OTHER = {}, 1\n")
        for name, why in {"named_for_tests.NONE": "has no attribute 'NONE'", "nowhere_at_all.X": "No module named 'nowhere_at_all'",
                          "named_for_tests.OTHER": "is not a dict", "alone": "has no module"}.items():
            os.environ[LOGGING] = name
            with self.assertRaisesRegex(AirflowException, rf"\[logging\] logging_config_class \({LOGGING}\) is '{name}', .*{why}"):
                named_classes.check()
        os.environ[LOGGING] = "named_for_tests.LOGGING"
        named_classes.check()


if __name__ == "__main__":
    unittest.main()
