"""The functions of `airflow.utils.timezone`."""

import datetime as dt

from leoflow.common.dates import aware, task_datetime, utcnow

utc = dt.timezone.utc
__all__ = ["coerce_datetime", "convert_to_utc", "datetime", "make_naive", "parse", "utc", "utcnow"]


def datetime(*args, **kwargs):
    kwargs.setdefault("tzinfo", utc)
    return dt.datetime(*args, **kwargs)


def convert_to_utc(value):
    return None if value is None else task_datetime(aware("a date", value).astimezone(utc))


def coerce_datetime(value, tz=None):
    if value is None:
        return None
    return task_datetime(value if value.tzinfo else value.replace(tzinfo=tz or utc))


def make_naive(value, timezone=None):
    return value.astimezone(timezone or utc).replace(tzinfo=None)


def parse(text, timezone=None, *, strict=False):
    value = dt.datetime.fromisoformat(text.replace("Z", "+00:00"))
    return task_datetime(value if value.tzinfo else value.replace(tzinfo=timezone or utc))
