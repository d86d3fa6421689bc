"""What Airflow 3.0 to 3.2 do otherwise than those after them."""

from __future__ import annotations

import importlib.util

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

ENCODED = ("__type", "__var")


def has_serde() -> bool:
    """Whether the arguments of deferred tasks are written down as XComs are: before 3.2 they have a form of their own."""
    return importlib.util.find_spec("airflow.sdk.serde") is not None


def run_type(wanted: str) -> str:
    """The type of a run in the words of the installed version: what it has no word for was manual in its time."""
    from airflow.sdk.api.datamodels._generated import DagRunType

    return wanted if wanted in {one.value for one in DagRunType} else DagRunType.MANUAL.value


def is_encoded(value):
    return isinstance(value, dict) and all(name in value for name in ENCODED)


def decode(value: Any) -> Any:
    """The arguments, from either form."""
    if is_encoded(value) or not has_serde():
        from airflow.serialization.serialized_objects import BaseSerialization

        return BaseSerialization.deserialize(value) if is_encoded(value) else value
    from airflow.sdk.serde import deserialize

    return deserialize(value)


def encode(value: Any) -> Any:
    """The arguments, in the form that the installed version reads."""
    if has_serde():
        from airflow.sdk.serde import serialize
    else:
        from airflow.serialization.serialized_objects import BaseSerialization

        serialize = BaseSerialization.serialize
    return serialize(value)


def as_read_here(kwargs: dict[str, Any] | None) -> Any:
    """Arguments that we have made up ourselves, or that have been encoded already."""
    if not kwargs or is_encoded(kwargs) or has_serde():
        return kwargs
    return encode(kwargs)


def tell_upstream_indexes(context: Any, task: Any, map_index: int, count: Any) -> None:
    """Which instances of each task before it count for this one: newer versions work that out themselves. `count` says how
    many instances a task has in this run."""
    if "upstream_map_indexes" not in type(context).model_fields:
        return
    found = {}
    own = task.get_closest_mapped_task_group()
    for upstream in task.upstream_list:
        group = upstream.get_closest_mapped_task_group()
        if group is None:
            found[upstream.task_id] = None
        elif group is own:
            found[upstream.task_id] = map_index
        else:
            found[upstream.task_id] = list(range(count(upstream.task_id)))
    context.upstream_map_indexes = found
