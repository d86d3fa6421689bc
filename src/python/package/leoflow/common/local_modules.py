"""Where the modules beside a DAG file are found."""

from __future__ import annotations

import os
import sys


def roots_of(file: str) -> list[str]:
    """The folders that hold the file and whose modules this process imports, the nearest first: the project's, the workspace's."""
    return [folder for folder in sys.path if folder and file.startswith(folder.rstrip(os.sep) + os.sep)] or [os.path.dirname(file)]


def without_dags(roots: list[str]) -> list[str]:
    """The folders that have settings, variables and plugins: the project's and the workspace's. `dags` comes before them."""
    return roots[-2:]
