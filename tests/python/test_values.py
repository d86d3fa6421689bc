"""XComs as they are stored."""

import dataclasses
import enum
import unittest
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal

from leoflow.common.values import DEEPEST, LARGEST_BYTES, NotStorable, decode, encode


class Colour(enum.Enum):
    RED = "red"


class Values(unittest.TestCase):
    def kept(self, value):
        return decode(encode("k", value))

    def test_come_back_as_they_were(self):
        for value in (
            None, True, 0, -(2**63), 2**64 - 1, 1.5, "", "ä\u2028", [], [1, [2]], {"a": {"b": None}}, (1, (2, 3)),
            datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=timezone.utc), date(2026, 1, 2), timedelta(days=1, microseconds=5),
            Decimal("1.10"), {1, 2}, frozenset({"x"}), b"\x00\xff", float("inf"),
        ):
            with self.subTest(value=value):
                found = self.kept(value)
                self.assertEqual(found, value)
                self.assertIs(type(found), type(value))

    def test_what_json_has_another_word_for(self):
        self.assertEqual(self.kept({1: "a"}), {"1": "a"})
        self.assertEqual(self.kept(Colour.RED), "red")
        self.assertTrue(self.kept(float("nan")) != self.kept(float("nan")))

    def test_what_cannot_be_kept_says_why(self):
        deep = []
        for _ in range(DEEPEST + 1):
            deep = [deep]
        for value, why in (
            (2**64, "more than 64 bits"), (10**400, "more than 64 bits"), (deep, "nested more than"),
            ({"__classname__": 1}, "reserved key"), (object(), "cannot be stored"), ("\ud800", "no Unicode"),
            ("x" * LARGEST_BYTES, "MiB is the most"),
        ):
            with self.subTest(why=why), self.assertRaisesRegex(NotStorable, why):
                encode("k", value)

    def test_a_dataclass_of_the_users_own_is_not_restored_from_nowhere(self):
        @dataclasses.dataclass
        class Local:
            x: int

        with self.assertRaises(Exception):  # noqa: B017
            decode(encode("k", Local(1)))
