"""The stubs of the small package's `airflow`, which type checkers read."""

import importlib
import unittest

from leoflow.names import MODULES
from leoflow.outside import stubs


class Stubs(unittest.TestCase):
    def test_each_name_of_a_stub_is_that_of_the_module(self):
        for module, names in MODULES.items():
            defined = {}
            exec(stubs.texts()["/".join(module.split(".")[1:])], defined)
            for name in (name for name, target in names.items() if not target.endswith(":")):
                with self.subTest(f"{module}.{name}"):
                    self.assertEqual(defined[name], getattr(importlib.import_module(module), name))

    def test_a_stub_has_the_modules_inside_of_its_module(self):
        text = stubs.texts()["providers/standard"]
        self.assertIn("from airflow.providers.standard import operators as operators\n", text)
        self.assertNotIn("bash", text)
        self.assertIn("from leoflow.authoring import timezone as timezone\n", stubs.texts()["sdk"])
