"""Plugins of Airflow's own SDK."""

import sys
import types
import unittest
from unittest import mock

from leoflow.sdk import dag_file
from leoflow.sdk.plugins import load_errors

ERRORS = {"/p/plugins/broken.py": "No module named 'flask_nothing'"}


def fail():
    raise ValueError("no plugins folder")


class LoadErrors(unittest.TestCase):
    def found(self, manager):
        airflow = types.ModuleType("airflow")
        airflow.plugins_manager = types.SimpleNamespace(**manager)
        with mock.patch.dict(sys.modules, {"airflow": airflow}), mock.patch.object(dag_file, "enter_project"):
            return load_errors.find()

    def test_plugins_that_cannot_be_loaded_are_named(self):
        expected = ["/p/plugins/broken.py: the plugin cannot be loaded: No module named 'flask_nothing'"]
        self.assertEqual(self.found({"get_import_errors": lambda: ERRORS}), expected)
        before_3_2 = {"ensure_plugins_loaded": lambda: None, "import_errors": ERRORS}
        self.assertEqual(self.found(before_3_2), expected)

    def test_a_failure_to_load_any_plugin_is_reported(self):
        found = self.found({"get_import_errors": fail})
        self.assertRegex(found[0], "the plugins cannot be loaded: .*no plugins folder")
