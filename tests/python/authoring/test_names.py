"""The table of names."""

import importlib
import unittest

import airflow
import airflow.sdk
from leoflow.common.exceptions import Unsupported
from leoflow.names import MODULE_OF_NAME, MODULES


class Names(unittest.TestCase):
    def test_all_modules_have_the_same_version(self):
        from airflow.version import version

        self.assertEqual(airflow.__version__, version)
        self.assertRegex(airflow.sdk.__version__, r"^\d+\.\d+\.\d+$")

    def test_every_name_of_the_table_can_be_imported(self):
        for module, names in MODULES.items():
            found = importlib.import_module(module)
            for name in names:
                with self.subTest(module=module, name=name):
                    self.assertIsNotNone(getattr(found, name))

    def test_every_defined_name_is_used(self):
        used = {name for names in MODULES.values() for name in names}
        self.assertEqual(set(MODULE_OF_NAME) - used, set())

    def test_an_unsupported_name_is_reported_with_its_line(self):
        with self.assertRaisesRegex(Unsupported, r"test_names\.py:\d+: airflow\.sdk\.BaseXCom is not supported"):
            from airflow.sdk import BaseXCom  # noqa: F401
        with self.assertRaisesRegex(ImportError, r"the module airflow\.providers\.amazon is not supported"):
            import airflow.providers.amazon  # noqa: F401

    def test_the_error_names_the_module_that_has_the_name(self):
        for text, use in {
            "from airflow.operators import BashOperator": "airflow.providers.standard.operators.bash.BashOperator",
            "from airflow.models import Asset": "airflow.sdk.Asset",
        }.items():
            with self.subTest(text), self.assertRaisesRegex(ImportError, f"use {use}$"):
                exec(text, {})

    def test_a_misspelt_name_is_not_reported_as_unsupported(self):
        for text in ("from airflow.sdk import tsk", "import airflow.sdk.tsk"):
            with self.subTest(text), self.assertRaises(ImportError) as caught:
                exec(text, {})
            self.assertNotIsInstance(caught.exception, Unsupported)

    def test_a_private_name_is_an_attribute_error(self):
        with self.assertRaises(AttributeError):
            airflow._nothing  # noqa: B018
