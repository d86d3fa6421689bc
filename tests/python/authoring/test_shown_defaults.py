"""`default_args` as the API shows them; the expected values are those of Apache Airflow 3.3.2."""

import datetime
import enum
import os
import unittest
import unittest.mock

from airflow.sdk import DAG
from leoflow.common.structure import iso_duration, shown_defaults
from leoflow.entry.structure import dag_structure


class Rule(str, enum.Enum):
    ALL_DONE = "all_done"


class Opaque:
    pass


class ShownDefaults(unittest.TestCase):
    def test_values_have_their_json_form(self):
        zone = datetime.timezone(datetime.timedelta(hours=2))
        given = {
            "owner": "me", "retries": 2, "retry_delay": datetime.timedelta(minutes=5, seconds=1), "none": None,
            "start_date": datetime.datetime(2024, 1, 1), "end_date": datetime.datetime(2024, 1, 1, 5, tzinfo=zone),
            "date": datetime.date(2024, 1, 2), "tags": {"b", "a"}, "tuple": (1, 2), "rule": Rule.ALL_DONE, "inf": float("inf"),
            "nested": {"x": datetime.timedelta(days=2), "y": (1,)}, "params": {"a": 1},
        }
        self.assertEqual(shown_defaults(given), {
            "owner": "me", "retries": 2, "retry_delay": "PT5M1S", "none": None, "start_date": "2024-01-01T00:00:00Z",
            "end_date": "2024-01-01T03:00:00Z", "date": "2024-01-02", "tags": ["a", "b"], "tuple": [1, 2], "rule": "all_done",
            "inf": "inf", "nested": {"x": "P2D", "y": [1]},
        })

    def test_of_callbacks_only_their_presence_is_shown(self):
        self.assertEqual(shown_defaults({"on_failure_callback": print, "on_success_callback": None}), {"has_on_failure_callback": True})
        self.assertEqual(shown_defaults(None), {})

    def test_an_object_is_shown_without_its_address(self):
        self.assertEqual(shown_defaults({"x": Opaque()}), {"x": f"<{__name__}.Opaque object>"})

    def test_a_setting_pauses_new_dags(self):
        with DAG("d") as dag, DAG("e", is_paused_upon_creation=True) as own:
            pass
        for value, expected in ("True", True), ("False", False), ("", None):
            with unittest.mock.patch.dict(os.environ, {"AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": value}):
                self.assertEqual(dag_structure(dag, True)["is_paused_upon_creation"], expected)
                self.assertTrue(dag_structure(own, True)["is_paused_upon_creation"])

    def test_durations_are_those_of_pydantic(self):
        for duration, expected in (
            (datetime.timedelta(days=1, hours=2, microseconds=5), "P1DT2H0.000005S"), (datetime.timedelta(hours=1), "PT1H"),
            (-datetime.timedelta(minutes=1), "-PT1M"), (datetime.timedelta(), "PT0S"), (datetime.timedelta(days=400), "P1Y35D"),
        ):
            self.assertEqual(iso_duration(duration), expected)
