"""Tests of `leoflow.survey`: what a project's sources need."""

import tempfile
import textwrap
import unittest
from pathlib import Path

from leoflow.survey.project import Survey


class SurveyTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.top = Path(folder.name)

    def survey(self, **files):
        """`files` are texts by path, with `__` for `/`; those in `dags` are the DAG files."""
        paths = []
        for name, text in files.items():
            path = self.top / (name.replace("__", "/") + ".py")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text if isinstance(text, bytes) else textwrap.dedent(text).encode())
            paths += [str(path)] if name.startswith("dags") and "lib" not in name else []
        return Survey(str(self.top), str(self.top), [str(self.top / "dags"), str(self.top)]).read(paths)

    @staticmethod
    def facts(facts, *, package=False):
        return {(fact["what"], fact["package"]) if package else fact["what"]: fact["places"] for fact in facts}

    def test_imports_are_followed_through_the_projects_own_modules(self):
        found = self.survey(
            dags__a="""
                import pandas as pd, os.path
                from google.cloud import bigquery
                from lib.tools import helper
                from .near import x
                import unknown_thing
            """,
            dags__lib__tools="import requests\nfrom . import other\n",
            dags__lib__other="import yaml\n",
            dags__near="",
            include__unused="import sklearn\n",
        )
        self.assertEqual(self.facts(found["modules"], package=True), {
            ("pandas", "pandas"): ["dags/a.py:2"], ("google.cloud.bigquery", "google-cloud-bigquery"): ["dags/a.py:3"],
            ("requests", "requests"): ["dags/lib/tools.py:1"], ("yaml", "pyyaml"): ["dags/lib/other.py:1"],
            ("unknown_thing", None): ["dags/a.py:6"],
        })

    def test_imports_that_need_not_succeed_are_optional(self):
        found = self.survey(dags__a="""
            from typing import TYPE_CHECKING
            if TYPE_CHECKING:
                import numpy
            try:
                import ujson
            except ImportError:
                import simplejson
            try:
                import boto3
            except KeyError:
                pass
            @task.virtualenv(requirements=["polars"])
            def f():
                import polars
            def g():
                import duckdb
            PythonVirtualenvOperator(python_callable=g)
            def h():
                import redis
        """)
        self.assertEqual(list(self.facts(found["modules"])), ["boto3", "redis"])

    def test_airflows_modules_are_told_apart(self):
        found = self.survey(dags__a="""
            from airflow import DAG
            from airflow.sdk import task
            from airflow.operators.python import PythonOperator
            from airflow.operators.bash_operator import BashOperator
            from airflow.providers.google.cloud.hooks.gcs import GCSHook
            from airflow.stats import Stats
            DAG("d", schedule_interval="@daily")
            BashOperator(bash_command="echo {{ execution_date }} {{ var.value.color }} {{ var.value.get('x', 1) }}")
        """)
        self.assertEqual(list(self.facts(found["modules"], package=True)),
                         [("airflow.providers.google.cloud.hooks.gcs", "apache-airflow-providers-google")])
        self.assertEqual(list(self.facts(found["only_sdk"])), ["airflow.stats"])
        removed = self.facts(found["translated"])
        self.assertEqual([places for text, places in removed.items() if "schedule_interval" in text], [["dags/a.py:8"]])
        self.assertEqual([places for text, places in removed.items() if "bash_operator" in text], [["dags/a.py:5"]])
        self.assertEqual([places for text, places in removed.items() if "execution_date" in text], [["dags/a.py:9"]])
        self.assertFalse(any("leoflow add" in text for text in removed))
        self.assertEqual(found["removed"], [])
        self.assertEqual(self.facts(found["variables"]), {"color": ["dags/a.py:9"]})

    def test_the_packages_of_what_replaces_names_of_airflow_2(self):
        found = self.survey(dags__a="""
            from airflow.operators.postgres_operator import PostgresOperator
            from airflow.operators import docker_operator, bash_operator
            from airflow.contrib.operators.gcs_to_bq import GoogleCloudStorageToBigQueryOperator
            from airflow.operators.python_operator import *
            from airflow.models.xcom import LazyXComAccess
        """)
        packages = {fact["package"].removeprefix("apache-airflow-providers-") for fact in found["modules"]}
        self.assertEqual(packages, {"common-sql", "docker", "google", "postgres"})
        self.assertEqual(found["removed"], [])
        self.assertEqual(list(self.facts(found["only_sdk"])), ["airflow.sdk.execution_time.lazy_sequence"])

    def test_names_of_airflow_2_in_any_place(self):
        found = self.survey(dags__a="""
            from airflow.utils import dates
            defaults = dict(owner="x", provide_context=True)
            @task(task_concurrency=1)
            def f(execution_date, **kwargs):
                return kwargs["next_ds"], row["next_ds"]
            BashOperator.partial(sla=1, trigger_rule="dummy")
            print(ti.execution_date, {"trigger_rule": "none_failed_or_skipped"})
        """)
        lines = sorted(int(places[0].partition(":")[2]) for places in self.facts(found["translated"]).values())
        self.assertEqual(lines, [2, 3, 4, 5, 6, 7, 7, 8])
        self.assertEqual(found["removed"], [])

    def test_pulls_and_keys_without_a_translation_in_any_place(self):
        found = self.survey(dags__a="""
            "{{ ti.xcom_pull('t') }}", kwargs["ti"].xcom_pull("t")
            print("{{ ti.xcom_pull(key='k') }}", kwargs["prev_ds"])
        """, dags__b="kwargs['ti'].xcom_pull(key='k')")
        self.assertEqual(sorted(self.facts(found["removed"]).values()), [["dags/a.py:3"], ["dags/b.py:1", "dags/a.py:3"]])

    def test_what_of_airflow_2_has_no_translation(self):
        found = self.survey(dags__a="""
            from airflow.operators.subdag import SubDagOperator
            from airflow.www.utils import x
            def pull(ti):
                return ti.xcom_pull(key="k"), ti.xcom_pull("t"), ti.xcom_pull(task_ids="t", key="k"), ti.xcom_pull(**{})
            BashOperator(bash_command="{{ prev_ds }}", execution_date="x")
            BashOperator(bash_command="{{ dag.following_schedule(ts) }}")
            print(dag.previous_schedule(date))
            from airflow.utils.dates import days_ago, round_time
        """)
        lines = [places[0].partition(":")[2] for places in self.facts(found["removed"]).values()]
        self.assertEqual(lines, ["6", "6", "7", "8", "2", "9", "3", "5"])
        self.assertEqual(found["translated"], [])

    def test_values_without_a_default_are_found(self):
        found = self.survey(dags__a="""
            import os
            Variable.get("a"), Variable.get("b", default=1), Variable.get("c", None), Variable.get("d", deserialize_json=True)
            os.environ["E"], os.environ.get("F"), os.environ["G"]
            os.environ["H"] = "1"
            Operator(postgres_conn_id="pg", other="/opt/airflow/x.sql")
            BaseHook.get_connection("api")
        """)
        self.assertEqual(list(self.facts(found["variables"])), ["a", "d"])
        self.assertEqual(list(self.facts(found["environment"])), ["E", "G"])
        self.assertEqual(list(self.facts(found["connections"])), ["api", "pg"])
        self.assertEqual(self.facts(found["image_paths"]), {"/opt/airflow/x.sql": ["dags/a.py:6"]})

    def test_the_folder_of_an_image_is_the_one_that_most_texts_name(self):
        found = self.survey(dags__a="""
            paths = ["/opt/airflow/a", "cd /opt/airflow && dbt run", "s3://x/opt/airflow/b", "/opt/airflow2", "/usr/local/airflow/c"]
        """)
        self.assertEqual(list(self.facts(found["image_paths"])), ["/opt/airflow/a", "/usr/local/airflow/c", "cd /opt/airflow && dbt run"])
        self.assertEqual(found["image_folder"]["path"], "/opt/airflow")
        self.assertIsNone(self.survey(dags__b="x = 1")["image_folder"])

    def test_files_that_cannot_be_read_are_named_with_their_lines(self):
        found = self.survey(dags__a="x = 1\ndef f(:\n", dags__b=b"x = 1\ny = '\xff'\n", dags__c="x = '\\d'\n")
        self.assertEqual(sorted(place for places in self.facts(found["unreadable"]).values() for place in places),
                         ["dags/a.py:2", "dags/b.py:2"])


if __name__ == "__main__":
    unittest.main()
