"""Hints for missing packages."""

import sys
import tempfile
import unittest
import unittest.mock
from pathlib import Path

from leoflow.common.packages import missing_package


def fails(text):
    """Runs `text` as a file; returns its error and the hint."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file.py"
        path.write_text(text)
        try:
            exec(compile(text, str(path), "exec"), {})
        except Exception as error:
            return error, missing_package(error)
    raise AssertionError("it does not fail")


class TestMissingPackages(unittest.TestCase):
    def test_a_package_also_one_with_another_name(self):
        self.assertIn("`leoflow add not-there`", fails("import not_there.inside")[1])
        error = ModuleNotFoundError("No module named 'sklearn'", name="sklearn")
        self.assertIn("`leoflow add scikit-learn`", missing_package(error))

    def test_a_provider(self):
        for module, provider in [("snowflake", "snowflake"), ("microsoft.azure", "microsoft-azure"), ("apache.spark", "apache-spark")]:
            error = ModuleNotFoundError("no", name=f"airflow.providers.{module}.hooks")
            self.assertIn(f"`leoflow add apache-airflow-providers-{provider}`", missing_package(error))

    def test_no_hint_for_a_missing_module_of_an_installed_provider(self):
        with unittest.mock.patch.dict(sys.modules, {"airflow.providers.amazon": sys, "airflow.providers.amazon.aws": sys}):
            self.assertIsNone(missing_package(ModuleNotFoundError("no", name="airflow.providers.amazon.aws.renamed")))

    def test_every_hint_names_the_same_files(self):
        from leoflow.common.exceptions import unsupported_name

        hints = [fails("import not_there")[1], str(unsupported_name("airflow.utils.email")),
                 missing_package(ModuleNotFoundError("no", name="airflow.providers.http.hooks"))]
        for hint in hints:
            self.assertRegex(hint, r"`leoflow add [\w-]+` in the project's folder, or in its leoflow.yaml\n    dependencies: \[")
            self.assertIn("requirements.txt, pyproject.toml or `# /// script`", hint)

    def test_follows_the_cause_of_an_error(self):
        text = "try:\n    import not_there\nexcept ImportError as error:\n    raise ValueError('no') from error"
        self.assertIn("`leoflow add not-there`", fails(text)[1])

    def test_no_hint_for_other_errors(self):
        for error in [ValueError("no"), ModuleNotFoundError("no", name="airflow.sdk"), ModuleNotFoundError("no", name="json.nothing")]:
            self.assertIsNone(missing_package(error))
