"""`airflow_2`: what is translated. Its effect in a process is tested in tests/it/python/airflow_2.rs."""

import datetime
import unittest

from leoflow.airflow_2 import arguments, context, modules, replacements


class TestTranslation(unittest.TestCase):
    def test_arguments_of_a_dag(self):
        self.assertEqual(arguments.of_dag({"schedule_interval": None, "concurrency": 2, "default_view": "graph", "tags": ["a"]}),
                         {"schedule": None, "max_active_tasks": 2, "tags": ["a"]})
        self.assertEqual(arguments.of_dag({"timetable": "x", "schedule": "@once"})["schedule"], "@once")
        # A DAG of Airflow 2 runs daily by default.
        self.assertEqual(arguments.of_dag({})["schedule"], datetime.timedelta(days=1))
        defaults = {"provide_context": True, "trigger_rule": "dummy", "retries": 1}
        self.assertEqual(arguments.of_dag({"default_args": defaults})["default_args"], {"trigger_rule": "always", "retries": 1})
        self.assertIn("provide_context", defaults)

    def test_arguments_of_an_operator(self):
        self.assertEqual(arguments.of_operator({"task_id": "t", "task_concurrency": 1, "sla": 3, "xcom_push": False}),
                         {"task_id": "t", "max_active_tis_per_dag": 1, "do_xcom_push": False})

    def test_which_names(self):
        for name in ("airflow.operators.dummy", "airflow.operators.dummy.DummyOperator", "airflow.utils.dates.days_ago",
                     "airflow.contrib.hooks.ssh_hook.SSHHook", "airflow.models.DAG", "airflow.utils.helpers.chain",
                     "airflow.hooks.base_hook.BaseHook", "airflow.sensors.base_sensor_operator.BaseSensorOperator"):
            self.assertTrue(modules.is_translated(name), name)
        for name in ("airflow.operators.subdag.SubDagOperator", "airflow.utils.dates.round_time", "airflow.www.utils",
                     "airflow.operators.dummy.Nothing"):
            self.assertFalse(modules.is_translated(name), name)

    def test_dates_of_a_run(self):
        date = datetime.datetime(2026, 1, 31, 6)
        found = context.dates({"logical_date": date, "data_interval_end": date + datetime.timedelta(days=7)})
        self.assertEqual(list(found), list(context.KEYS))
        self.assertEqual([found[key] for key in ("execution_date", "tomorrow_ds", "yesterday_ds_nodash", "next_ds")],
                         [date, "2026-02-01", "20260130", "2026-02-07"])
        self.assertEqual(context.dates({}), {})

    def test_days_ago(self):
        now = datetime.datetime.now(datetime.timezone.utc)
        for days, hour in ((0, 0), (3, 5)):
            self.assertIn((now - replacements.days_ago(days, hour=hour)).days, (days - 1, days))
            self.assertEqual(replacements.days_ago(days, hour=hour).hour, hour)
