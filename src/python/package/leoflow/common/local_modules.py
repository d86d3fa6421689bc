"""Where the modules beside a DAG file are found."""

from __future__ import annotations

import os
import sys


def roots_of(file: str) -> list[str]:
    """The folders that hold the file and whose modules this process imports, the nearest first: the project's, the workspace's."""
    holding = {folder for folder in sys.path if folder and file.startswith(folder.rstrip(os.sep) + os.sep)}
    return sorted(holding, key=len, reverse=True) or [os.path.dirname(file)]


def dags_folder(roots: list[str]) -> list[str]:
    """The first root where it is Airflow's folder of DAGs, else none. As on Airflow, installed packages come before its modules:
    a DAG file is often named after the package that it uses."""
    return roots[:1] if len(roots) > 1 and os.path.basename(roots[0]) == "dags" else []


def without_dags(roots: list[str]) -> list[str]:
    """The folders that have settings, variables and plugins: the project's and the workspace's. `dags` comes before them."""
    return roots[-2:]
