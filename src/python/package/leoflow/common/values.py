"""XCom values: what JSON holds, and what `serialized` has a form for, as Airflow stores them."""

from __future__ import annotations

import enum
import json
import math

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# Of the JSON text. Larger results belong in a file or a table, with its name as the result.
LARGEST_BYTES = 10 * 1024 * 1024
DEEPEST = 100
CLASS, VERSION, DATA = "__classname__", "__version__", "__data__"
TUPLE = "builtins.tuple"


class NotStorable(ValueError):
    """A value that cannot be kept."""


def plain(value: Any, depth: int = 0) -> Any:
    """The value as JSON has it. Raises NotStorable that says what is wrong with it."""
    if depth > DEEPEST:
        raise NotStorable(f"is nested more than {DEEPEST} deep")
    if isinstance(value, enum.Enum):
        # As Airflow has it: what it stands for.
        return plain(value.value, depth + 1)
    kind = type(value)
    if value is None or kind in (bool, str):
        return value
    if kind is int:
        if not -(2**63) <= value < 2**64:
            shown = f"{value:.3e}, which has" if abs(value) < 10**300 else "an int of"
            raise NotStorable(f"holds {shown} more than 64 bits")
        return value
    if kind is float:
        return value if math.isfinite(value) else formed(value, depth)
    if kind is list:
        return [plain(one, depth + 1) for one in value]
    if isinstance(value, tuple):
        return {CLASS: TUPLE, VERSION: 1, DATA: [plain(one, depth + 1) for one in value]}
    if isinstance(value, dict):
        if CLASS in value:
            raise NotStorable(f"holds a dict with the reserved key {CLASS!r}")
        # Keys become texts, as Airflow has it.
        return {str(key): plain(one, depth + 1) for key, one in value.items()}
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return plain(int(value), depth)
    return formed(value, depth)


def formed(value, depth):
    """A value that JSON has no word for."""
    from leoflow.common.serialized import NoForm, form_of

    try:
        name, version, data = form_of(value)
    except NoForm as error:
        raise NotStorable(
            f"holds a {error}, which cannot be stored: give it a serialize() and a deserialize(data, version), "
            "or make it a dataclass"
        ) from None
    return {CLASS: name, VERSION: version, DATA: plain(data, depth + 1)}


def encode(key: str, value: Any) -> str:
    """The value as JSON text. Raises NotStorable."""
    try:
        text = json.dumps(plain(value), ensure_ascii=False)
        size = len(text.encode())
    except NotStorable as error:
        raise NotStorable(f"XCom {key!r} {error}") from None
    except UnicodeEncodeError as error:
        raise NotStorable(f"XCom {key!r} holds a text that is no Unicode: {error}") from None
    if size > LARGEST_BYTES:
        raise NotStorable(
            f"XCom {key!r} has {size / 1048576:.1f} MiB, and {LARGEST_BYTES // 1048576} MiB is the most; "
            "write it to a file and return the file's name"
        )
    return text


def decode(text: str) -> Any:
    """The value that was encoded."""
    return json.loads(text, object_hook=restored)


def restored(found):
    if CLASS not in found or VERSION not in found:
        return found
    if found[CLASS] == TUPLE:
        return tuple(found[DATA])
    from leoflow.common.serialized import value_of

    return value_of(found[CLASS], found[VERSION], found.get(DATA))
