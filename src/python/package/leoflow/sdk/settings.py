"""Applies the settings of `leoflow.yaml` to DAGs of Airflow's SDK."""

from __future__ import annotations

from leoflow.common.settings import project_settings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from airflow.sdk import DAG


def apply(settings: dict[str, Any], dags: list[DAG]) -> None:
    project_settings.apply(settings, dags, set_value)


def set_value(task, name, value):
    """Sets an attribute of a task; for a mapped task, sets the argument of its instances. `env` is stored with the
    DAG."""
    if name == "env":
        variables = task.dag.__dict__.setdefault("leoflow_env", {})
        variables[task.task_id] = {**variables.get(task.task_id, {}), **value}
    elif getattr(task, "is_mapped", False):
        task.partial_kwargs[name] = value
    else:
        setattr(task, name, value)
