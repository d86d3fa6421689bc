"""Dates with a zone. pendulum's where it is there, because DAG files expect its methods."""

from __future__ import annotations

import itertools
from datetime import datetime, timedelta, timezone

from leoflow.common.exceptions import MissingPackage, Unsupported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from datetime import tzinfo
    from typing import Any


class Plain(datetime):
    """A date for when pendulum is not there: says so when one of pendulum's methods is called."""

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


def moment(text: str) -> datetime:
    """A moment as RFC 3339 has it, with as many digits as it has: Python 3.10 reads three of them, or six."""
    text = text.replace("Z", "+00:00")
    head, point, rest = text.partition(".")
    digits = "".join(itertools.takewhile(str.isdigit, rest))
    return datetime.fromisoformat(f"{head}.{digits[:6]:0<6}{rest[len(digits):]}" if point else text)


def parse_time(text: str | None) -> datetime | None:
    """A stored time, in UTC, as task code sees it."""
    if text is None:
        return None
    return of(moment(text).astimezone(timezone.utc))


def of(value: datetime) -> datetime:
    """The same moment as task code sees it."""
    pendulum = pendulum_or_none()
    if pendulum is not None:
        return pendulum.instance(value)
    return Plain(value.year, value.month, value.day, value.hour, value.minute, value.second, value.microsecond,
                 value.tzinfo, fold=value.fold)


def aware(name: str, value: Any) -> datetime | None:
    """A moment that was given by the user: in UTC where it names no zone."""
    if value is None:
        return None
    if isinstance(value, str):
        # As in Airflow: a text is a date.
        value = datetime.fromisoformat(value.replace("Z", "+00:00"))
    if not isinstance(value, datetime):
        raise TypeError(f"{name} must be a datetime and is {type(value).__name__}")
    return value if value.tzinfo else value.replace(tzinfo=timezone.utc)


def zone_name(tzinfo: tzinfo | None) -> str | int:
    """`Europe/Berlin`, `UTC`, or an offset in seconds."""
    if tzinfo is None or tzinfo is timezone.utc:
        return "UTC"
    for attribute in ("key", "name", "zone"):
        name = getattr(tzinfo, attribute, None)
        if isinstance(name, str) and name and not name.startswith(("+", "-")):
            return "UTC" if name in ("UTC", "Etc/UTC") else name
    offset = tzinfo.utcoffset(None)
    if offset is None:
        raise Unsupported(f"the time zone {tzinfo!r}")
    whole = int(offset.total_seconds())
    return "UTC" if whole == 0 else whole


def zone(name: str | int) -> tzinfo:
    """The zone of that name."""
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
    return of(datetime.now(timezone.utc))


def seconds_of(delta):
    return delta.total_seconds()


def stamp(value: datetime | None) -> str | None:
    """A moment, for JSON."""
    return None if value is None else aware("a date", value).astimezone(timezone.utc).isoformat()
