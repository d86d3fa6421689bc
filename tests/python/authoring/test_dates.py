"""Times and time zones."""

import os
import unittest
import unittest.mock
from datetime import datetime, timedelta, timezone
from zoneinfo import ZoneInfo

from airflow.sdk import DAG
from leoflow.common.dates import aware, parse_time, zone, zone_name
from leoflow.common.exceptions import Unsupported


class Dates(unittest.TestCase):
    def test_a_time_without_a_zone_is_in_utc(self):
        self.assertEqual(aware("d", datetime(2026, 1, 1)), datetime(2026, 1, 1, tzinfo=timezone.utc))
        self.assertEqual(aware("d", "2026-01-01T00:00:00Z"), datetime(2026, 1, 1, tzinfo=timezone.utc))
        with self.assertRaises(TypeError):
            aware("d", 5)

    def test_a_setting_names_the_zone_of_times_without_one(self):
        for name, offset in ("Europe/Berlin", 2), ("utc", 0), ("system", 9):
            with unittest.mock.patch.dict(os.environ, {"AIRFLOW__CORE__DEFAULT_TIMEZONE": name, "TZ": "Asia/Tokyo"}):
                self.assertEqual(aware("d", datetime(2026, 7, 1)).utcoffset(), timedelta(hours=offset), name)
                with DAG("d", start_date=datetime(2026, 7, 1), schedule="@daily") as dag, DAG("e") as undated:
                    pass
            self.assertEqual([day.timezone.utcoffset(datetime(2026, 7, 1)) for day in (dag, undated)], [timedelta(hours=offset)] * 2)

    def test_parses_a_stored_time(self):
        self.assertEqual(parse_time("2026-01-01T02:00:00+02:00"), datetime(2026, 1, 1, tzinfo=timezone.utc))
        self.assertIsNone(parse_time(None))

    def test_a_zone_has_a_name_or_an_offset(self):
        for zone_info, name in (
            (None, "UTC"), (timezone.utc, "UTC"), (ZoneInfo("Etc/UTC"), "UTC"), (ZoneInfo("Europe/Berlin"), "Europe/Berlin"),
            (timezone(timedelta(hours=2)), 7200),
        ):
            with self.subTest(name=name):
                self.assertEqual(zone_name(zone_info), name)
                time = datetime(2026, 7, 1, tzinfo=zone(name))
                self.assertEqual(time.utcoffset(), time.replace(tzinfo=zone_info or timezone.utc).utcoffset())
        with self.assertRaisesRegex(ValueError, "no time zone 'Nowhere/Else'"):
            zone("Nowhere/Else")

    def test_refuses_a_zone_without_name_or_offset(self):
        class Odd(type(timezone.utc).__mro__[1]):
            def utcoffset(self, time):
                return None

        with self.assertRaises(Unsupported):
            zone_name(Odd())
