"""The line that brings what is not installed."""

import tempfile
import unittest
from pathlib import Path

from leoflow.common.packages import missing_package


def fails(text):
    """The error of a file that consists of `text`."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file.py"
        path.write_text(text)
        try:
            exec(compile(text, str(path), "exec"), {})
        except Exception as error:
            return error, missing_package(error)
    raise AssertionError("it does not fail")


class TestMissingPackages(unittest.TestCase):
    def test_a_package_and_one_of_another_name(self):
        self.assertIn("`leoflow add not-there`", fails("import not_there.inside")[1])
        error = ModuleNotFoundError("No module named 'sklearn'", name="sklearn")
        self.assertIn("`leoflow add scikit-learn`", missing_package(error))

    def test_a_provider(self):
        for module, provider in [("snowflake", "snowflake"), ("microsoft.azure", "microsoft-azure"), ("apache.spark", "apache-spark")]:
            error = ModuleNotFoundError("no", name=f"airflow.providers.{module}.hooks")
            self.assertIn(f"`leoflow add apache-airflow-providers-{provider}`", missing_package(error))

    def test_of_what_was_raised_in_its_place(self):
        text = "try:\n    import not_there\nexcept ImportError as error:\n    raise ValueError('no') from error"
        self.assertIn("`leoflow add not-there`", fails(text)[1])

    def test_nothing_is_said_of_other_errors(self):
        for error in [ValueError("no"), ModuleNotFoundError("no", name="airflow.sdk"), ModuleNotFoundError("no", name="json.nothing")]:
            self.assertIsNone(missing_package(error))
