"""Encoding of XComs."""

import dataclasses
import enum
import unittest
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal

from leoflow.common.values import LARGEST_BYTES, MAX_DEPTH, NotStorable, decode, encode


class Colour(enum.Enum):
    RED = "red"


class Values(unittest.TestCase):
    def round_trip(self, value):
        return decode(encode("k", value))

    def test_survive_a_round_trip(self):
        for value in (
            None, True, 0, -(2**63), 2**64 - 1, 1.5, "", "ä\u2028", [], [1, [2]], {"a": {"b": None}}, (1, (2, 3)),
            datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=timezone.utc), date(2026, 1, 2), timedelta(days=1, microseconds=5),
            Decimal("1.10"), {1, 2}, frozenset({"x"}), b"\x00\xff", float("inf"),
        ):
            with self.subTest(value=value):
                found = self.round_trip(value)
                self.assertEqual(found, value)
                self.assertIs(type(found), type(value))

    def test_values_that_json_changes(self):
        self.assertEqual(self.round_trip({1: "a"}), {"1": "a"})
        self.assertEqual(self.round_trip(Colour.RED), "red")
        self.assertTrue(self.round_trip(float("nan")) != self.round_trip(float("nan")))

    def test_errors_say_why_a_value_cannot_be_stored(self):
        nested = []
        for _ in range(MAX_DEPTH + 1):
            nested = [nested]
        for value, why in (
            (2**64, "more than 64 bits"), (10**400, "more than 64 bits"), (nested, "nested more than"),
            ({"__classname__": 1}, "reserved key"), (object(), "cannot be stored"), ("\ud800", "not valid Unicode"),
            ("x" * LARGEST_BYTES, "the limit is 10 MiB"),
        ):
            with self.subTest(why=why), self.assertRaisesRegex(NotStorable, why):
                encode("k", value)

    def test_a_local_dataclass_cannot_be_decoded(self):
        @dataclasses.dataclass
        class Local:
            x: int

        with self.assertRaises(Exception):  # noqa: B017
            decode(encode("k", Local(1)))
