"""Encodes XCom values in Airflow's format: JSON, in which other types have the form of `serialized.py`."""

from __future__ import annotations

import enum
import json
import math

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# Size limit of the JSON text. A task should write a larger result to a file or a table and return its name.
LARGEST_BYTES = 10 * 1024 * 1024
MAX_DEPTH = 100
CLASS, VERSION, DATA = "__classname__", "__version__", "__data__"
TUPLE = "builtins.tuple"


class NotStorable(ValueError):
    """A value that cannot be stored."""


def plain(value: Any, depth: int = 0) -> Any:
    """Converts a value to plain JSON. Raises NotStorable with the reason."""
    if depth > MAX_DEPTH:
        raise NotStorable(f"is nested more than {MAX_DEPTH} deep")
    if isinstance(value, enum.Enum):
        # As in Airflow, a member of an enumeration is stored as its value.
        return plain(value.value, depth + 1)
    kind = type(value)
    if value is None or kind in (bool, str):
        return value
    if kind is int:
        if not -(2**63) <= value < 2**64:
            number = f"{value:.3e}, which has" if abs(value) < 10**300 else "an int of"
            raise NotStorable(f"holds {number} more than 64 bits")
        return value
    if kind is float:
        return value if math.isfinite(value) else serialized(value, depth)
    if kind is list:
        return [plain(item, depth + 1) for item in value]
    if isinstance(value, tuple):
        return {CLASS: TUPLE, VERSION: 1, DATA: [plain(item, depth + 1) for item in value]}
    if isinstance(value, dict):
        if CLASS in value:
            raise NotStorable(f"holds a dict with the reserved key {CLASS!r}")
        # Keys become strings, as in Airflow.
        return {str(key): plain(item, depth + 1) for key, item in value.items()}
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return plain(int(value), depth)
    return serialized(value, depth)


def serialized(value, depth):
    """Serializes a value that JSON cannot represent."""
    # Imported here, because plain values do not need it.
    from leoflow.common.serialized import Unserializable, serialized_form

    try:
        name, version, data = serialized_form(value)
    except Unserializable as error:
        raise NotStorable(
            f"holds a {error}, which cannot be stored: give it a serialize() and a deserialize(data, version), "
            "or make it a dataclass"
        ) from None
    return {CLASS: name, VERSION: version, DATA: plain(data, depth + 1)}


def encode(key: str, value: Any) -> str:
    """Encodes a value as JSON text. Raises NotStorable."""
    try:
        text = json.dumps(plain(value), ensure_ascii=False)
        size = len(text.encode())
    except NotStorable as error:
        raise NotStorable(f"XCom {key!r} {error}") from None
    except UnicodeEncodeError as error:
        raise NotStorable(f"XCom {key!r} holds a text that is not valid Unicode: {error}") from None
    if size > LARGEST_BYTES:
        raise NotStorable(
            f"XCom {key!r} has {size / 1048576:.1f} MiB; the limit is {LARGEST_BYTES // 1048576} MiB: "
            "write it to a file and return the file's name"
        )
    return text


def decode(text: str) -> Any:
    """Decodes a value that `encode` produced."""
    return json.loads(text, object_hook=restored)


def restored(fields):
    """Restores a value from its serialized form; returns any other JSON object as it is."""
    if CLASS not in fields or VERSION not in fields:
        return fields
    if fields[CLASS] == TUPLE:
        return tuple(fields[DATA])
    from leoflow.common.serialized import deserialized

    return deserialized(fields[CLASS], fields[VERSION], fields.get(DATA))
