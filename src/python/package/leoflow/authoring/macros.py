"""`macros` in templates: <https://airflow.apache.org/docs/apache-airflow/stable/templates-ref.html#macros>"""

import json
import time
import uuid
from datetime import datetime, timedelta
from random import random

from leoflow.common.exceptions import MissingPackage

__all__ = ["datetime", "ds_add", "ds_format", "datetime_diff_for_humans", "json", "random", "time", "timedelta", "uuid"]


def ds_add(ds, days):
    if not days:
        return str(ds)
    return (datetime.strptime(str(ds), "%Y-%m-%d") + timedelta(days=days)).strftime("%Y-%m-%d")


def ds_format(ds, input_format, output_format):
    return datetime.strptime(str(ds), input_format).strftime(output_format)


def ds_format_locale(ds, input_format, output_format, locale=None):
    try:
        from babel import Locale
        from babel.dates import LC_TIME, format_datetime
    except ImportError:
        raise MissingPackage("babel", "macros.ds_format_locale") from None
    return format_datetime(datetime.strptime(str(ds), input_format), format=output_format,
                           locale=locale or Locale.parse(LC_TIME))


def datetime_diff_for_humans(dt, since=None):
    try:
        import pendulum
    except ImportError:
        raise MissingPackage("pendulum", "macros.datetime_diff_for_humans") from None
    return pendulum.instance(dt).diff_for_humans(None if since is None else pendulum.instance(since))


def __getattr__(name):
    if name in ("dateutil", "yaml"):
        import importlib

        try:
            return importlib.import_module(name)
        except ImportError:
            raise MissingPackage(name, f"macros.{name}") from None
    raise AttributeError(name)
