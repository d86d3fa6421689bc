"""Datetimes with a time zone. If pendulum is installed, they are its datetimes, because DAG files expect its
methods."""

from __future__ import annotations

import itertools
import os
from datetime import datetime, timedelta, timezone

from leoflow.common.exceptions import MissingPackage, Unsupported
from leoflow.common.settings.airflow_settings import Setting

TYPE_CHECKING = False
if TYPE_CHECKING:
    from datetime import tzinfo
    from typing import Any


DEFAULT_TIMEZONE = Setting("core", "default_timezone", "utc", str)


class PlainDateTime(datetime):
    """A datetime for code without pendulum: calling one of pendulum's methods raises MissingPackage."""

    def __getattr__(self, name):
        if name.startswith("_"):
            raise AttributeError(name)
        raise MissingPackage("pendulum", f"the method {name}() of a date")


def pendulum_or_none():
    try:
        import pendulum
    except ImportError:
        return None
    return pendulum


def template_dates(date: datetime) -> dict[str, str]:
    """Returns the context keys that are texts of a run's date."""
    stamp = date.isoformat()
    return {
        "ds": date.strftime("%Y-%m-%d"), "ds_nodash": date.strftime("%Y%m%d"), "ts": stamp,
        "ts_nodash": date.strftime("%Y%m%dT%H%M%S"), "ts_nodash_with_tz": stamp.replace("-", "").replace(":", ""),
    }


def moment(text: str) -> datetime:
    """Parses an RFC 3339 time with any number of fractional digits; Python 3.10 accepts only three or six."""
    text = text.replace("Z", "+00:00")
    seconds, point, fraction = text.partition(".")
    digits = "".join(itertools.takewhile(str.isdigit, fraction))
    return datetime.fromisoformat(f"{seconds}.{digits[:6]:0<6}{fraction[len(digits):]}" if point else text)


def parse_time(text: str | None) -> datetime | None:
    """Parses a stored time; returns a time in UTC, of the type that task code expects."""
    if text is None:
        return None
    return task_datetime(moment(text).astimezone(timezone.utc))


def task_datetime(value: datetime) -> datetime:
    """Converts to the type that task code expects: pendulum's, or PlainDateTime without pendulum."""
    pendulum = pendulum_or_none()
    if pendulum is not None:
        return pendulum.instance(value)
    return PlainDateTime(value.year, value.month, value.day, value.hour, value.minute, value.second, value.microsecond,
                 value.tzinfo, fold=value.fold)


def aware(name: str, value: Any) -> datetime | None:
    """Checks the user's datetime `name`; a datetime without a time zone is in that of `default_zone`."""
    if value is None:
        return None
    if isinstance(value, str):
        # Airflow also accepts ISO 8601 texts.
        value = datetime.fromisoformat(value.replace("Z", "+00:00"))
    if not isinstance(value, datetime):
        raise TypeError(f"{name} must be a datetime and is {type(value).__name__}")
    return value if value.tzinfo else value.replace(tzinfo=default_zone())


def default_zone() -> tzinfo:
    """Returns the time zone that AIRFLOW__CORE__DEFAULT_TIMEZONE names: UTC by default, or `system` for the machine's."""
    name = DEFAULT_TIMEZONE.value()
    return system_zone() if name == "system" else zone("UTC" if name.lower() == "utc" else name)


def system_zone():
    """Returns the time zone of the machine: that of TZ or `/etc/localtime`; its offset if that file is a copy, which has
    no name."""
    name = os.environ.get("TZ", "").lstrip(":") or os.path.realpath("/etc/localtime").partition("/zoneinfo/")[2]
    return zone(name) if name else datetime.now().astimezone().tzinfo


def zone_name(tzinfo: tzinfo | None) -> str | int:
    """Returns the name of a time zone, such as `Europe/Berlin` or `UTC`, or its offset in seconds."""
    if tzinfo is None or tzinfo is timezone.utc:
        return "UTC"
    for attribute in ("key", "name", "zone"):
        name = getattr(tzinfo, attribute, None)
        if isinstance(name, str) and name and not name.startswith(("+", "-")):
            return "UTC" if name in ("UTC", "Etc/UTC") else name
    offset = tzinfo.utcoffset(None)
    if offset is None:
        raise Unsupported(f"the time zone {tzinfo!r}")
    offset_seconds = int(offset.total_seconds())
    return "UTC" if offset_seconds == 0 else offset_seconds


def zone(name: str | int) -> tzinfo:
    """Returns the time zone of a name or of an offset in seconds."""
    if isinstance(name, int):
        return timezone(timedelta(seconds=name))
    if name in ("UTC", "Etc/UTC"):
        return timezone.utc
    import zoneinfo

    try:
        return zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError) as error:
        raise ValueError(f"there is no time zone {name!r}: {error}") from None


def utcnow() -> datetime:
    return task_datetime(datetime.now(timezone.utc))


def stamp(value: datetime | None) -> str | None:
    """Formats a time in UTC for JSON."""
    return None if value is None else aware("a date", value).astimezone(timezone.utc).isoformat()


def iso(value: Any) -> str | None:
    """The ISO 8601 text of a date or datetime; None for None."""
    return None if value is None else value.isoformat()
