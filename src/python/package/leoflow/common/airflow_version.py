"""The versions of Airflow and of its SDK that the small package implements, and those that this release runs."""

from __future__ import annotations

import os

from leoflow.common.exceptions import AirflowException

version = "3.3.2"
sdk_version = "1.3.2"


def minors() -> list[list[str]]:
    """Returns the minor versions that this release runs, oldest first: each Airflow's, the SDK's, the oldest Python, and the
    release that was tried."""
    with open(os.path.join(os.path.dirname(__file__), "airflow_minors.txt"), encoding="utf-8") as file:
        return [line.split()[1:] for line in file if line.startswith("minor ")]


def is_yaml(path: str) -> bool:
    """True for the path of a DAG file in YAML, which Airflow's SDK imports from version 3.4 on."""
    return path.endswith((".yaml", ".yml"))


def needs_yaml_importer(path: str) -> AirflowException:
    """Returns the error for a DAG in YAML without the SDK that imports it."""
    return AirflowException(f"{path} is a DAG in YAML, which needs Airflow's own SDK of version 3.4 or newer: put "
                            f"`airflow: {minors()[-1][3]}` into the project's leoflow.yaml")
