"""The DAGs of a file, by Airflow's own SDK: what its processor of DAG files looks for and checks, without a database."""

from __future__ import annotations

import os
import sys

from leoflow.common import topology
from leoflow.common.exceptions import AirflowException
from leoflow.sdk import refusals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from airflow.sdk import DAG


def enter_project() -> None:
    """Airflow has read where DAGs and plugins are when it was imported, which may have been for another project."""
    from airflow import settings

    settings.DAGS_FOLDER = os.path.expanduser(os.environ["AIRFLOW__CORE__DAGS_FOLDER"])
    folder = os.environ["AIRFLOW__CORE__PLUGINS_FOLDER"]
    settings.PLUGINS_FOLDER = folder
    if os.path.isdir(folder) and folder not in sys.path:
        sys.path.append(folder)


def dags_of(workspace: Any, path: str, settings: dict[str, Any] | None) -> list[DAG]:
    """Those that the file makes, each as it is to run."""
    from airflow.sdk import DAG
    from airflow.sdk.definitions._internal.contextmanager import DagContext

    refusals.check_version()
    enter_project()
    DagContext.autoregistered_dags.clear()
    DagContext.current_autoregister_module_name = workspace.module_name(path)
    try:
        module = workspace.run(path)
        made = [value for value in vars(module).values() if isinstance(value, DAG)]
        made += sorted((dag for dag, _ in DagContext.autoregistered_dags), key=lambda dag: dag.dag_id)
    finally:
        DagContext.current_autoregister_module_name = None
        DagContext.autoregistered_dags.clear()
    found = {}
    for dag in made:
        if dag.fileloc != path and workspace.owns(dag.fileloc):
            # It is of another file, which this one has imported.
            continue
        if found.setdefault(dag.dag_id, dag) is not dag:
            raise AirflowException(f"dag_id {dag.dag_id!r} is used twice")
    for dag in found.values():
        dag.fileloc, dag.relative_fileloc = path, os.path.basename(path)
        check(dag, workspace.source(path))
    if settings:
        from leoflow.sdk import settings as project_settings

        project_settings.apply(settings, list(found.values()))
    return list(found.values())


def check(dag, source):
    """As Airflow does before it takes a DAG."""
    from airflow import settings

    dag.validate()
    if len(topology.ordered(dag.task_dict)) < len(dag.task_dict):
        # In Airflow's words, where its version has them on the DAG.
        getattr(dag, "check_cycle", lambda: None)()
        raise AirflowException(f"Cycle detected in Dag: {dag.dag_id}")
    dag.resolve_template_files()
    settings.dag_policy(dag)
    for task in dag.tasks:
        settings.task_policy(task)
    refusals.check(dag, source)


def place_of(dag: DAG, source: str) -> str:
    """File and line, as far as the text tells where it is made."""
    return f"{dag.fileloc}:{refusals.line_of(dag.dag_id, source)}"
