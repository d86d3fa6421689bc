"""Values that JSON has no word for, in the form that Airflow stores them in: the name of their class, the version
of the form, and data. What Airflow has no form for has one of the same kind here.

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


class NoForm(TypeError):
    """A value that can be written down in no form."""


def name_of(kind):
    return f"{kind.__module__}.{kind.__qualname__}"


def form_of(value: Any) -> tuple[str, int, Any]:
    """Name, version and data of a value; the data may hold such values in turn. Raises NoForm."""
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
        return name, version, {one.name: getattr(value, one.name) for one in dataclasses.fields(value) if one.init}
    if hasattr(kind, "__attrs_attrs__"):
        return name, version, {one.alias or one.name: getattr(value, one.name) for one in kind.__attrs_attrs__ if one.init}
    raise NoForm(name)


def known(kind, plain, name):
    """The class that reads it again: pendulum's are their own, other subclasses are what they are made from."""
    return name if name in ("pendulum.datetime.DateTime", "pendulum.date.Date") else plain


def zone_of(value):
    """Name or seconds, class, version, and that there is one: a tuple, as Airflow has it."""
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
    """A Decimal as Airflow has it: an int where it has no fraction. What a float would round stays a text."""
    if not value.is_finite():
        return str(value)
    if value.as_tuple().exponent >= 0 and abs(value) < 2**63:
        return int(value)
    return float(value) if decimal.Decimal(repr(float(value))) == value else str(value)


def numpy_form(value, name):
    import numpy

    if isinstance(value, numpy.ndarray):
        if value.dtype.hasobject or value.dtype.kind == "V":
            raise NoForm(f"{name} of {value.dtype}")
        if value.dtype.kind in "mMc":
            return "numpy.ndarray", 1, {"dtype": str(value.dtype), "shape": list(value.shape), "bytes": value.tobytes()}
        return "numpy.ndarray", 1, {"dtype": str(value.dtype), "shape": list(value.shape), "data": value.ravel().tolist()}
    if isinstance(value, (numpy.bool_, numpy.integer, numpy.floating)):
        return name, 1, value.item()
    raise NoForm(name)


def parquet(frame):
    """A frame as Airflow has it: Parquet, in hexadecimal."""
    try:
        import pyarrow
        from pyarrow import parquet as format
    except ImportError:
        raise NoForm("pandas.DataFrame (without pyarrow, which writes it down)") from None
    sink = pyarrow.BufferOutputStream()
    format.write_table(pyarrow.Table.from_pandas(frame), sink, compression="snappy")
    return sink.getvalue().to_pybytes().hex()


def value_of(name: str, version: int, data: Any) -> Any:
    """The value that was in that form. Raises TypeError for a class that is not one of those."""
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
    """The class, also one of the DAG file itself."""
    import importlib

    module, _, rest = name.rpartition(".")
    while module:
        if module not in sys.modules:
            try:
                importlib.import_module(module)
            except ImportError:
                outer = module.rpartition(".")
                module, rest = outer[0], f"{outer[2]}.{rest}"
                continue
        found = sys.modules[module]
        for part in rest.split("."):
            found = getattr(found, part, None)
        if isinstance(found, type):
            return found
        break
    raise TypeError(f"an XCom holds a {name}, and there is no such class here")


def zone_from(told):
    if told is None:
        return None
    name = told[0]
    if isinstance(name, (int, float)):
        return datetime.timezone(datetime.timedelta(seconds=name))
    if name == "UTC":
        return datetime.timezone.utc
    import zoneinfo

    return zoneinfo.ZoneInfo(name)


def read_datetime(data):
    return datetime.datetime.fromtimestamp(float(data["timestamp"]), tz=zone_from(data["tz"]))


def read_pendulum(data):
    """A plain date where this process has no pendulum."""
    return dates.of(read_datetime(data))


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
        found = numpy.frombuffer(data["bytes"], dtype=data["dtype"]).copy()
    else:
        found = numpy.array(data["data"], dtype=data["dtype"])
    return found.reshape(data["shape"])


READERS = {
    "builtins.tuple": tuple, "builtins.set": set, "builtins.frozenset": frozenset, "builtins.float": float,
    "builtins.bytes": read_bytes, "datetime.datetime": read_datetime, "datetime.date": datetime.date.fromisoformat,
    "datetime.time": datetime.time.fromisoformat,
    "datetime.timedelta": lambda data: datetime.timedelta(seconds=float(data)),
    "decimal.Decimal": lambda data: decimal.Decimal(str(data)), "uuid.UUID": uuid.UUID,
    "pendulum.datetime.DateTime": read_pendulum, "pendulum.date.Date": read_pendulum_date,
    "pandas.core.frame.DataFrame": read_frame,
}
