"""Applies the settings of `leoflow.yaml` to DAGs of the small package."""

from __future__ import annotations

from leoflow.common.settings import project_settings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from leoflow.authoring.dag.dag import DAG


def apply(settings: dict[str, Any], dags: list[DAG]) -> None:
    project_settings.apply(settings, dags, set_value)


def set_value(task, name, value):
    """Sets an attribute of a task. For a mapped task, `execution_timeout` also applies to its instances."""
    if name == "env":
        task.leoflow_env = {**getattr(task, "leoflow_env", {}), **value}
        return
    setattr(task, name, value)
    if name == "execution_timeout" and task.is_mapped:
        task.base_kwargs[name] = value
