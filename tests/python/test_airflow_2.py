"""`airflow_2`: what is translated. Its effect in a process is tested in tests/it/python/airflow_2.rs."""

import datetime
import unittest
from types import SimpleNamespace

from leoflow.airflow_2 import arguments, context, modules, replacements


class TestTranslation(unittest.TestCase):
    def test_arguments_of_a_dag(self):
        given = {"schedule_interval": None, "concurrency": 2, "default_view": "graph", "tags": ["a"]}
        self.assertEqual(arguments.translate_dag_arguments(given),
                         {"schedule": None, "max_active_tasks": 2, "tags": ["a"]})
        self.assertEqual(arguments.translate_dag_arguments({"timetable": "x", "schedule": "@once"})["schedule"], "@once")
        # A DAG of Airflow 2 runs daily by default.
        self.assertEqual(arguments.translate_dag_arguments({})["schedule"], datetime.timedelta(days=1))
        defaults = {"provide_context": True, "trigger_rule": "dummy", "retries": 1}
        translated = arguments.translate_dag_arguments({"default_args": defaults})["default_args"]
        # An operator of the user may have an argument of an old name.
        self.assertEqual(translated, {"provide_context": True, "trigger_rule": "always", "retries": 1})
        self.assertEqual(defaults["trigger_rule"], "dummy")

    def test_positional_arguments_of_a_dag(self):
        class Dag:
            def __init__(self, dag_id, *, description=None, schedule=None):
                self.values = dag_id, description, schedule

        arguments.wrap(Dag, "__init__", arguments.translate_dag_arguments, arguments.DAG_POSITIONS)
        self.assertEqual(Dag("a", "about", "@weekly").values, ("a", "about", "@weekly"))
        with self.assertRaises(TypeError):
            Dag("a", "about", "@weekly", datetime.datetime(2026, 1, 1))

    def test_arguments_of_an_operator(self):
        self.assertEqual(arguments.translate_operator_arguments({"task_id": "t", "task_concurrency": 1, "sla": 3, "xcom_push": False}),
                         {"task_id": "t", "max_active_tis_per_dag": 1, "do_xcom_push": False})

    def test_which_names(self):
        for name in ("airflow.operators.dummy", "airflow.operators.dummy.DummyOperator", "airflow.utils.dates.days_ago",
                     "airflow.contrib.hooks.ssh_hook.SSHHook", "airflow.models.DAG", "airflow.utils.helpers.chain",
                     "airflow.hooks.base_hook.BaseHook", "airflow.utils.dates", "airflow.sensors.base_sensor_operator.BaseSensorOperator"):
            self.assertTrue(modules.is_translated(name), name)
        for name in ("airflow.operators.subdag.SubDagOperator", "airflow.utils.dates.round_time",
                     "airflow.contrib.hooks.gcp_mlengine_hook.MLEngineHook", "airflow.www.utils",
                     "airflow.operators.dummy.Nothing"):
            self.assertFalse(modules.is_translated(name), name)

    def test_dates_of_a_run(self):
        date = datetime.datetime(2026, 1, 31, 6)

        def dates(run_type, logical_date=date):
            run = SimpleNamespace(logical_date=logical_date, run_after=date, run_type=run_type, data_interval_end=end)
            return context.dates({"dag_run": run})

        end = date + datetime.timedelta(days=7)
        found = dates("scheduled")
        self.assertEqual(list(found), list(context.KEYS))
        self.assertEqual([found[key] for key in ("execution_date", "tomorrow_ds", "yesterday_ds_nodash", "next_ds")],
                         [date, "2026-02-01", "20260130", "2026-02-07"])
        self.assertEqual(dates("manual")["next_ds"], "2026-01-31")
        end = None
        found = dates("asset_triggered", None)
        self.assertEqual([found[key] for key in ("execution_date", "next_execution_date", "logical_date", "ds", "ts_nodash")],
                         [date, date, date, "2026-01-31", "20260131T060000"])

    def test_days_ago(self):
        now = datetime.datetime.now(datetime.timezone.utc)
        for days, hour in ((0, 0), (3, 5)):
            self.assertIn((now - replacements.days_ago(days, hour=hour)).days, (days - 1, days))
            self.assertEqual(replacements.days_ago(days, hour=hour).hour, hour)
