"""What `leoflow.yaml` says of the DAGs beside it, put into the objects of our own package."""

from __future__ import annotations

from leoflow.common import project_settings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from leoflow.authoring.dag import DAG


def apply(settings: dict[str, Any], dags: list[DAG]) -> None:
    project_settings.apply(settings, dags, set_value)


def set_value(task, name, value):
    """`execution_timeout` also of the instances of a mapped task, which are made later."""
    if name == "env":
        task.leoflow_env = {**getattr(task, "leoflow_env", {}), **value}
        return
    setattr(task, name, value)
    if name == "execution_timeout" and task.is_mapped:
        task.base_kwargs[name] = value
