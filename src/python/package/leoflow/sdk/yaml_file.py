"""DAGs in YAML, which Airflow's SDK imports from version 3.4 on."""

from __future__ import annotations

from pathlib import Path

from leoflow.common import airflow_version
from leoflow.common.exceptions import AirflowException
from leoflow.sdk.startup import Bundle

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from airflow.sdk import DAG


def dags_of(workspace: Any, path: str) -> list[DAG]:
    """Returns the DAGs of a YAML file, or of its stored text."""
    try:
        from airflow.sdk.importers.base import FilesystemDagDefinition
        from airflow.sdk.importers.yaml_importer import YamlDagImporter
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("airflow.sdk.importers"):
            raise
        raise airflow_version.needs_yaml_importer(path) from None

    class Definition(FilesystemDagDefinition):
        """The text that the DAG's version has; other files beside it are read from disk."""

        def read_bytes(self):
            return workspace.source(path).encode()

    result = YamlDagImporter().import_definition(Definition(Path(path)), Bundle(Path(path).parent))
    if result.errors:
        raise AirflowException("\n".join(error.message for error in result.errors))
    return result.dags
