"""The folders from which modules beside a DAG file are imported."""

from __future__ import annotations

import os
import sys

# The file that shows that a virtual environment is one of `leoflow env link`; written first, and again when all else is
# complete.
LINK_MARKER = "leoflow-link.json"
# The name of the project whose code runs in this process.
_project: str | None = None
_is_entered = False


def enter_project(roots: list[str], is_outside: bool = False) -> None:
    """Records the project of these roots; a file directly in the workspace has none. `is_outside` is true in a process
    that Leoflow did not start."""
    global _project, _is_entered
    _is_entered = not is_outside
    _project = os.path.basename(roots[-2]) if len(roots) > 1 else None


def is_entered() -> bool:
    """True in the processes in which Leoflow runs the code of a project."""
    return _is_entered


def project_name() -> str | None:
    """Returns the name of the project whose code runs: its folder in the workspace."""
    return _project


def roots_of(file: str) -> list[str]:
    """Returns the folders of `sys.path` that contain the file, nearest first, such as the project's and the
    workspace's."""
    folders = {folder for folder in sys.path if folder and file.startswith(folder.rstrip(os.sep) + os.sep)}
    return sorted(folders, key=len, reverse=True) or [os.path.dirname(file)]


def dags_folder(roots: list[str]) -> list[str]:
    """Returns the first root if it is a `dags` folder, else an empty list. As in Airflow, installed packages take
    precedence over modules in `dags`, because a DAG file is often named after the package that it uses."""
    return roots[:1] if len(roots) > 1 and os.path.basename(roots[0]) == "dags" else []


def project_roots(roots: list[str]) -> list[str]:
    """Returns the roots that may contain settings, `.env` and plugins: the project's and the workspace's folder,
    without `dags`."""
    return roots[-2:]


def plugins_folders(roots: list[str]) -> list[str]:
    """Returns where plugins may be, nearest first; the first folder that exists is Airflow's plugins folder."""
    return [os.path.join(root, "plugins") for root in project_roots(roots)]


def link_target_folders(roots: list[str]) -> list[str]:
    """If the project's folder is a symbolic link, returns the folder that contains its target, because the project's
    modules may import modules beside the target. Returns an empty list if Python itself is below that folder, as for a
    target directly in the user's home."""
    if len(roots) < 2 or not os.path.islink(roots[-2]):
        return []
    folder = os.path.dirname(os.path.realpath(roots[-2]))
    # The virtual environment of `leoflow env link` is in the project.
    is_linked = os.path.exists(os.path.join(sys.prefix, LINK_MARKER))
    inner = (sys.base_prefix if is_linked else sys.prefix, sys.base_prefix, os.path.dirname(__file__))
    return [] if any(os.path.realpath(path).startswith(folder.rstrip(os.sep) + os.sep) for path in inner) else [folder]
