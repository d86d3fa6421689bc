"""The folders from which modules beside a DAG file are imported."""

from __future__ import annotations

import os
import sys


def roots_of(file: str) -> list[str]:
    """Returns the import folders that contain the file, nearest first: the project's, the workspace's."""
    folders = {folder for folder in sys.path if folder and file.startswith(folder.rstrip(os.sep) + os.sep)}
    return sorted(folders, key=len, reverse=True) or [os.path.dirname(file)]


def dags_folder(roots: list[str]) -> list[str]:
    """Returns the first root if it is a `dags` folder, else nothing. As in Airflow, installed packages take precedence
    over its modules, because a DAG file is often named after the package that it uses."""
    return roots[:1] if len(roots) > 1 and os.path.basename(roots[0]) == "dags" else []


def project_roots(roots: list[str]) -> list[str]:
    """Returns the folders that may contain settings, `.env` and plugins: the project's and the workspace's, without
    `dags`."""
    return roots[-2:]


def beside_link(roots: list[str]) -> list[str]:
    """Returns the folder that contains the target of the project's link, if the project is one: its modules import
    those beside the target. Nothing if Python itself is below that folder, such as for a target in the user's home."""
    if len(roots) < 2 or not os.path.islink(roots[-2]):
        return []
    folder = os.path.dirname(os.path.realpath(roots[-2]))
    inner = (sys.prefix, sys.base_prefix, os.path.dirname(__file__))
    return [] if any(os.path.realpath(path).startswith(folder.rstrip(os.sep) + os.sep) for path in inner) else [folder]
