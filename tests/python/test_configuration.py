"""Airflow's `conf` in the small package."""

import os
import tempfile
import unittest
from unittest.mock import patch

from leoflow.common.exceptions import AirflowConfigException, AirflowException
from leoflow.common.settings import airflow_settings, configuration
from leoflow.common.settings.configuration import conf


class Configuration(unittest.TestCase):
    def test_a_variable_precedes_default_and_fallback(self):
        self.assertEqual(conf.get("core", "Parallelism", fallback="9"), "32")
        self.assertEqual(conf.get("core", "default_task_retries", fallback=7), "0")
        self.assertEqual(conf.get("mine", "key", fallback=None), None)
        with patch.dict(os.environ, AIRFLOW__CORE__PARALLELISM="4", AIRFLOW__MINE__KEY=""):
            self.assertEqual((conf.getint("core", "parallelism"), conf.get("mine", "key", fallback="x")), (4, ""))

    def test_values_are_converted_as_in_airflow(self):
        values = {"WHOLE": "3.0", "PART": "1.5", "YES": "T # comment", "LIST": "a, b", "NONE": ""}
        with patch.dict(os.environ, {f"AIRFLOW__MINE__{key}": value for key, value in values.items()}):
            self.assertEqual((conf.getint("mine", "whole"), conf.getfloat("mine", "part")), (3, 1.5))
            self.assertIs(conf.getboolean("mine", "yes"), True)
            self.assertEqual((conf.getlist("mine", "list"), conf.getlist("mine", "none")), (["a", "b"], []))
            for read in (conf.getint, conf.getfloat, conf.getboolean):
                with self.assertRaisesRegex(AirflowConfigException, 'Please check "list" key in "mine" section'):
                    read("mine", "list")
        self.assertEqual((conf.getboolean("mine", "x", fallback=False), conf.getint("mine", "x", fallback=2)), (False, 2))
        self.assertEqual(conf.getlist("mine", "x", fallback=None), None)

    def test_a_missing_key_is_an_error(self):
        with self.assertRaisesRegex(AirflowConfigException, r"section/key \[mine/key\] not found in config"):
            conf.get("mine", "key")
        self.assertTrue(conf.has_option("core", "parallelism"))
        self.assertFalse(conf.has_option("mine", "key"))
        with patch.dict(os.environ, AIRFLOW__API__BASE_URL="http://x"):
            self.assertEqual(conf.get("webserver", "base_url"), "http://x")

    def test_a_command_is_an_error_that_names_the_variable(self):
        with patch.dict(os.environ, AIRFLOW__SMTP__SMTP_PASSWORD_CMD="cat secret"):
            with self.assertRaisesRegex(AirflowConfigException, "set AIRFLOW__SMTP__SMTP_PASSWORD to the value itself"):
                conf.get("smtp", "smtp_password", fallback="")
            with self.assertRaisesRegex(AirflowException, "AIRFLOW__SMTP__SMTP_PASSWORD_CMD is read by"):
                airflow_settings.Setting("smtp", "smtp_password", "", str).value()

    def test_folders_are_those_of_the_project(self):
        holder = tempfile.TemporaryDirectory()
        self.addCleanup(holder.cleanup)
        folder = holder.name
        with patch.dict(os.environ, AIRFLOW_HOME=folder, AIRFLOW__CORE__DEFAULT_TIMEZONE="Asia/Tokyo"):
            self.assertEqual(configuration.DAGS_FOLDER, folder)
            os.mkdir(f"{folder}/dags")
            self.assertEqual((conf.get("core", "dags_folder"), configuration.AIRFLOW_HOME), (f"{folder}/dags", folder))
            self.assertEqual(str(configuration.TIMEZONE), "Asia/Tokyo")

    def test_names_are_where_airflow_has_them(self):
        import airflow
        from airflow.configuration import conf as of_core
        from airflow.sdk import conf as of_sdk
        from airflow.sdk.configuration import conf as of_module
        from airflow.settings import DAGS_FOLDER

        self.assertEqual((of_core, of_sdk, of_module), (conf, conf, conf))
        self.assertEqual(DAGS_FOLDER, configuration.DAGS_FOLDER)
        self.assertRegex(airflow.__version__, r"^3\.\d+\.\d+$")


if __name__ == "__main__":
    unittest.main()
