"""Differences between Airflow 3.0 to 3.2 and later versions."""

from __future__ import annotations

import importlib.util

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# Keys of a value in the older format.
ENCODED = ("__type", "__var")


def has_serde() -> bool:
    """True if arguments of deferred tasks are serialized like XComs; before Airflow 3.2 they have another format."""
    return importlib.util.find_spec("airflow.sdk.serde") is not None


def has_start_from_trigger() -> bool:
    """True if Airflow's scheduler uses `start_from_trigger`; before Airflow 3.3, workers call `execute()`."""
    import airflow

    return tuple(int(part) for part in airflow.__version__.split(".")[:2]) >= (3, 3)


def skip_exception() -> type[BaseException]:
    try:
        from airflow.sdk.exceptions import AirflowSkipException
    except ImportError:
        from airflow.exceptions import AirflowSkipException
    return AirflowSkipException


def run_type(name: str) -> str:
    """Maps a run type to one that the installed version knows; an unknown type becomes `manual`, as in that version."""
    from airflow.sdk.api.datamodels._generated import DagRunType

    return name if name in {known_type.value for known_type in DagRunType} else DagRunType.MANUAL.value


def is_encoded(value):
    return isinstance(value, dict) and all(name in value for name in ENCODED)


def decode(value: Any) -> Any:
    """Deserializes arguments from either format."""
    if is_encoded(value) or not has_serde():
        from airflow.serialization.serialized_objects import BaseSerialization

        return BaseSerialization.deserialize(value) if is_encoded(value) else value
    from airflow.sdk.serde import deserialize

    return deserialize(value)


def encode(value: Any) -> Any:
    """Serializes arguments in the format that the installed version reads."""
    if has_serde():
        from airflow.sdk.serde import serialize
    else:
        from airflow.serialization.serialized_objects import BaseSerialization

        serialize = BaseSerialization.serialize
    return serialize(value)


def encode_if_needed(kwargs: dict[str, Any] | None) -> Any:
    """Serializes arguments, unless they are serialized already or the installed version reads plain values."""
    if not kwargs or is_encoded(kwargs) or has_serde():
        return kwargs
    return encode(kwargs)


def set_upstream_indexes(context: Any, task: Any, map_index: int, count: Any) -> None:
    """Sets `upstream_map_indexes`, the map indexes of each upstream task whose XComs the task pulls; newer versions
    compute them. `count` returns the number of a task's instances in this run."""
    if "upstream_map_indexes" not in type(context).model_fields:
        return
    indexes = {}
    own_group = task.get_closest_mapped_task_group()
    for upstream in task.upstream_list:
        group = upstream.get_closest_mapped_task_group()
        if group is None:
            indexes[upstream.task_id] = None
        elif group is own_group:
            indexes[upstream.task_id] = map_index
        else:
            indexes[upstream.task_id] = list(range(count(upstream.task_id)))
    context.upstream_map_indexes = indexes
