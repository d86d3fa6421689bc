"""Collects and checks the DAGs of a file with Airflow's SDK, like Airflow's DAG processor but without a database."""

from __future__ import annotations

import os
import sys

from leoflow.airflow_2.install import install_if
from leoflow.common import topology
from leoflow.common.airflow_version import is_yaml
from leoflow.common.exceptions import AirflowException
from leoflow.common.settings import image_folder
from leoflow.sdk import refusals, yaml_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from airflow.sdk import DAG


def enter_project() -> None:
    """Sets Airflow's folders of DAGs and plugins, because Airflow may have been imported before the project was
    known."""
    from airflow import settings

    settings.DAGS_FOLDER = os.path.expanduser(os.environ["AIRFLOW__CORE__DAGS_FOLDER"])
    folder = os.environ["AIRFLOW__CORE__PLUGINS_FOLDER"]
    settings.PLUGINS_FOLDER = folder
    if os.path.isdir(folder) and folder not in sys.path:
        sys.path.append(folder)


def dags_of(workspace: Any, path: str, settings: dict[str, Any] | None) -> list[DAG]:
    """Runs a DAG file; returns its DAGs, checked and with the project's settings applied."""
    from airflow.sdk import DAG
    from airflow.sdk.definitions._internal.contextmanager import DagContext

    refusals.check_version()
    enter_project()
    image_folder.show_if(settings)
    install_if(settings)
    DagContext.autoregistered_dags.clear()
    DagContext.current_autoregister_module_name = None if is_yaml(path) else workspace.module_name(path)
    try:
        if is_yaml(path):
            defined = yaml_file.dags_of(workspace, path)
        else:
            module = workspace.run(path)
            defined = [value for value in vars(module).values() if isinstance(value, DAG)]
            defined += sorted((dag for dag, _ in DagContext.autoregistered_dags), key=lambda dag: dag.dag_id)
    finally:
        DagContext.current_autoregister_module_name = None
        DagContext.autoregistered_dags.clear()
    dags_by_id = {}
    for dag in defined:
        if dag.fileloc != path and workspace.owns(dag.fileloc):
            # The DAG belongs to another file, which this one imports.
            continue
        if dags_by_id.setdefault(dag.dag_id, dag) is not dag:
            raise AirflowException(f"dag_id {dag.dag_id!r} is used twice")
    for dag in dags_by_id.values():
        dag.fileloc, dag.relative_fileloc = path, os.path.basename(path)
        check(dag, workspace.source(path))
    if settings:
        from leoflow.sdk import settings as project_settings

        project_settings.apply(settings, list(dags_by_id.values()))
    return list(dags_by_id.values())


def check(dag, source):
    """Checks a DAG like Airflow's DAG processor, and applies the user's policies."""
    from airflow import settings

    dag.validate()
    if len(topology.ordered(dag.task_dict)) < len(dag.task_dict):
        # Raises Airflow's error, in versions that have this method.
        getattr(dag, "check_cycle", lambda: None)()
        raise AirflowException(f"Cycle detected in Dag: {dag.dag_id}")
    dag.resolve_template_files()
    settings.dag_policy(dag)
    for task in dag.tasks:
        settings.task_policy(task)
    refusals.check(dag, source)


def location_of(dag: DAG, source: str) -> str:
    """Returns file and line of a DAG's definition; the line is 1 if the source does not contain the dag_id."""
    return f"{dag.fileloc}:{refusals.line_of(dag.dag_id, source)}"
