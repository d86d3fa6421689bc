"""Serializes values that JSON cannot represent, in Airflow's format: the name of the class, a version, and data. Types
that Airflow does not serialize use the same format.

<https://airflow.apache.org/docs/apache-airflow/stable/authoring-and-scheduling/serializers.html>
"""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import sys
import uuid

from leoflow.common import dates

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

CLASS, VERSION, DATA = "__classname__", "__version__", "__data__"
FIXED_ZONE = "pendulum.tz.timezone.FixedTimezone"


class Unserializable(TypeError):
    """A value that cannot be serialized."""


def name_of(kind):
    return f"{kind.__module__}.{kind.__qualname__}"


def serialized_form(value: Any) -> tuple[str, int, Any]:
    """Returns the class name, the version and the data of a value. The data may contain values that must be serialized,
    too. Raises Unserializable."""
    kind = type(value)
    name = name_of(kind)
    top = kind.__module__.partition(".")[0]
    if top == "numpy":
        return numpy_form(value, name)
    if isinstance(value, float):
        return "builtins.float", 1, repr(float(value))
    if isinstance(value, (set, frozenset)):
        return "builtins.frozenset" if isinstance(value, frozenset) else "builtins.set", 1, list(value)
    if isinstance(value, (bytes, bytearray)):
        import base64

        return "builtins.bytes", 1, base64.b64encode(value).decode()
    if isinstance(value, datetime.datetime):
        return known(kind, "datetime.datetime", name), 2, {"timestamp": value.timestamp(), "tz": zone_of(value)}
    if isinstance(value, datetime.date):
        return known(kind, "datetime.date", name), 2, value.isoformat()
    if isinstance(value, datetime.timedelta):
        return "datetime.timedelta", 2, value.total_seconds()
    if isinstance(value, datetime.time):
        return "datetime.time", 1, value.isoformat()
    if isinstance(value, decimal.Decimal):
        return name, 1, number_of(value)
    if isinstance(value, uuid.UUID):
        return "uuid.UUID", 1, str(value)
    if name == "pandas.core.frame.DataFrame" or name == "pandas.DataFrame":
        return "pandas.core.frame.DataFrame", 1, parquet(value)
    if hasattr(kind, "model_dump") and hasattr(kind, "model_validate"):
        return name, 1, value.model_dump(mode="json")
    version = getattr(kind, "__version__", 0)
    if hasattr(value, "serialize"):
        return name, version, value.serialize()
    if dataclasses.is_dataclass(kind):
        return name, version, {field.name: getattr(value, field.name) for field in dataclasses.fields(value) if field.init}
    if hasattr(kind, "__attrs_attrs__"):
        return name, version, {field.alias or field.name: getattr(value, field.name) for field in kind.__attrs_attrs__ if field.init}
    raise Unserializable(name)


def known(kind, plain, name):
    """Returns the name of the class that deserializes the value: pendulum's classes keep their `name`; any other
    subclass is deserialized as the `plain` class."""
    return name if name in ("pendulum.datetime.DateTime", "pendulum.date.Date") else plain


def zone_of(value):
    """Returns Airflow's form of a value's time zone: a tuple of name or offset in seconds, class, version, and True."""
    zone = value.tzinfo
    if zone is None:
        return None
    name = getattr(zone, "key", None) or getattr(zone, "name", None) or getattr(zone, "zone", None)
    offset = value.utcoffset()
    if isinstance(name, str) and not name.startswith(("+", "-")):
        return (name, name_of(type(zone)), 1, True)
    seconds = int(offset.total_seconds())
    return ("UTC" if seconds == 0 else seconds, FIXED_ZONE, 1, True)


def number_of(value):
    """Returns Airflow's form of a Decimal: an int if it has no fraction, else a float. A value that neither represents
    exactly becomes a text."""
    if not value.is_finite():
        return str(value)
    if value.as_tuple().exponent >= 0 and abs(value) < 2**63:
        return int(value)
    return float(value) if decimal.Decimal(repr(float(value))) == value else str(value)


def numpy_form(value, name):
    import numpy

    if isinstance(value, numpy.ndarray):
        if value.dtype.hasobject or value.dtype.kind == "V":
            raise Unserializable(f"{name} of {value.dtype}")
        if value.dtype.kind in "mMc":
            return "numpy.ndarray", 1, {"dtype": str(value.dtype), "shape": list(value.shape), "bytes": value.tobytes()}
        return "numpy.ndarray", 1, {"dtype": str(value.dtype), "shape": list(value.shape), "data": value.ravel().tolist()}
    if isinstance(value, (numpy.bool_, numpy.integer, numpy.floating)):
        return name, 1, value.item()
    raise Unserializable(name)


def parquet(frame):
    """Returns Airflow's form of a DataFrame: Parquet, encoded in hexadecimal."""
    try:
        import pyarrow
        from pyarrow import parquet as format
    except ImportError:
        raise Unserializable("pandas.DataFrame (pyarrow, which serializes it, is not installed)") from None
    sink = pyarrow.BufferOutputStream()
    format.write_table(pyarrow.Table.from_pandas(frame), sink, compression="snappy")
    return sink.getvalue().to_pybytes().hex()


def deserialized(name: str, version: int, data: Any) -> Any:
    """Deserializes a value. Raises TypeError for an unknown class."""
    read = READERS.get(name)
    if read is not None:
        return read(data)
    if name.startswith("numpy."):
        return read_numpy(name, data)
    kind = find(name)
    if hasattr(kind, "model_validate"):
        return kind.model_validate(data)
    if hasattr(kind, "deserialize"):
        return kind.deserialize(data, version)
    if dataclasses.is_dataclass(kind) or hasattr(kind, "__attrs_attrs__"):
        return kind(**data)
    raise TypeError(f"an XCom holds a {name}, which has no deserialize()")


def find(name):
    """Imports a class by name; it may be defined in the DAG file."""
    import importlib

    module, _, attributes = name.rpartition(".")
    while module:
        if module not in sys.modules:
            try:
                importlib.import_module(module)
            except ImportError:
                outer = module.rpartition(".")
                module, attributes = outer[0], f"{outer[2]}.{attributes}"
                continue
        value = sys.modules[module]
        for part in attributes.split("."):
            value = getattr(value, part, None)
        if isinstance(value, type):
            return value
        break
    raise TypeError(f"an XCom holds a {name}, and that class cannot be imported")


def zone_from(serialized_zone):
    if serialized_zone is None:
        return None
    name = serialized_zone[0]
    if isinstance(name, (int, float)):
        return datetime.timezone(datetime.timedelta(seconds=name))
    if name == "UTC":
        return datetime.timezone.utc
    import zoneinfo

    return zoneinfo.ZoneInfo(name)


def read_datetime(data):
    return datetime.datetime.fromtimestamp(float(data["timestamp"]), tz=zone_from(data["tz"]))


def read_pendulum(data):
    """Returns a PlainDateTime if pendulum is not installed."""
    return dates.task_datetime(read_datetime(data))


def read_pendulum_date(data):
    pendulum = dates.pendulum_or_none()
    return (datetime.date if pendulum is None else pendulum.Date).fromisoformat(data)


def read_bytes(data):
    import base64

    return base64.b64decode(data)


def read_frame(data):
    import io

    from pyarrow import parquet as format

    return format.read_table(io.BytesIO(bytes.fromhex(data))).to_pandas()


def read_numpy(name, data):
    import numpy

    if name != "numpy.ndarray":
        return getattr(numpy, name.rpartition(".")[2])(data)
    if "bytes" in data:
        array = numpy.frombuffer(data["bytes"], dtype=data["dtype"]).copy()
    else:
        array = numpy.array(data["data"], dtype=data["dtype"])
    return array.reshape(data["shape"])


READERS = {
    "builtins.tuple": tuple, "builtins.set": set, "builtins.frozenset": frozenset, "builtins.float": float,
    "builtins.bytes": read_bytes, "datetime.datetime": read_datetime, "datetime.date": datetime.date.fromisoformat,
    "datetime.time": datetime.time.fromisoformat,
    "datetime.timedelta": lambda data: datetime.timedelta(seconds=float(data)),
    "decimal.Decimal": lambda data: decimal.Decimal(str(data)), "uuid.UUID": uuid.UUID,
    "pendulum.datetime.DateTime": read_pendulum, "pendulum.date.Date": read_pendulum_date,
    "pandas.core.frame.DataFrame": read_frame,
}
