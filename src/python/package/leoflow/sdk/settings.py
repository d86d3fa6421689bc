"""What `leoflow.yaml` says of the DAGs beside it, put into Airflow's own objects."""

from __future__ import annotations

from leoflow.common import project_settings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from airflow.sdk import DAG


def apply(settings: dict[str, Any], dags: list[DAG]) -> None:
    project_settings.apply(settings, dags, set_value)


def set_value(task, name, value):
    """Also of the instances of a mapped task, which are made later."""
    if name == "env":
        of_dag = task.dag.__dict__.setdefault("leoflow_env", {})
        of_dag[task.task_id] = {**of_dag.get(task.task_id, {}), **value}
    elif getattr(task, "is_mapped", False):
        task.partial_kwargs[name] = value
    else:
        setattr(task, name, value)
