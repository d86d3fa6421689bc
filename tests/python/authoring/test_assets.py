"""Assets and the schedules of the small package."""

import unittest
import warnings

from leoflow import DAG, Asset
from leoflow.entry import structure


class Assets(unittest.TestCase):
    def test_uris_are_normalized_as_by_airflow(self):
        for given, expected in {
            "s://a": "s://a/",
            "S3://Bucket/key/": "s3://Bucket/key",
            "s3://b/x/../y//": "s3://b/x/../y",
            "http://host/x?b=1&a=2&empty=#part": "http://host/x?a=2&b=1",
            "file:///a//b": "file:///a//b",
            "x-own://a#part": "x-own://a#part",
            "no address": "no address",
        }.items():
            with self.subTest(given=given):
                self.assertEqual(Asset(given).uri, expected)
                self.assertEqual(Asset(given).name, given)
        with warnings.catch_warnings(record=True):
            warnings.simplefilter("always")
            self.assertEqual(Asset("s://ada:secret@host").uri, "s://host/")


class Schedules(unittest.TestCase):
    def test_presets_are_shown_as_by_airflow(self):
        for schedule, summary in {"@daily": "0 0 * * *", "@midnight": "@midnight", "@Annually": "@Annually"}.items():
            with self.subTest(schedule=schedule):
                described = structure.dag_structure(DAG("d", schedule=schedule), True)
                self.assertEqual((described["schedule"], described["timetable_summary"]), (schedule, summary))
                self.assertTrue(described["timetable"]["expression"].startswith("0 0 "), described["timetable"])

    def test_reruns_keep_an_explicit_false(self):
        for given, stored in ((None, {}), (False, {"rerun_with_latest_version": False}), (1, {"rerun_with_latest_version": True})):
            with self.subTest(given=given):
                described = structure.dag_structure(DAG("d", rerun_with_latest_version=given), True)
                self.assertEqual({name: described[name] for name in described if name.startswith("rerun")}, stored)
