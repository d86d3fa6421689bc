"""Finds the file of the project that a path of a container image stands for, such as `/opt/airflow/dags/query.sql`."""

from __future__ import annotations

import os
import re

from leoflow.common import local_modules
from leoflow.common.hints.own_modules import importing_file
from leoflow.common.settings import image_folder

# Airflow's folder in the images of Apache Airflow and of Astronomer, on MWAA and on Cloud Composer.
FOLDERS = ("/opt/airflow/", "/usr/local/airflow/", "/home/airflow/gcs/")
IN_TEXT = re.compile(rf"(?<![\w.}}/-])({'|'.join(folder.rstrip('/') for folder in FOLDERS)})(?![\w.-])")


def folders_in(text: str) -> list[str]:
    """Returns the folders of images that a text names, such as a path or a command."""
    return IN_TEXT.findall(text)


def missing_file(error: BaseException) -> str | None:
    """Returns a hint for a file that was not found, or could not be created, because its path is one of an image; else
    None."""
    path = getattr(error, "filename", None)
    own = (image_folder.problem[0].rstrip("/") + "/",) if image_folder.problem else ()
    folder = next((folder for folder in (*own, *FOLDERS) if isinstance(path, str) and (path + "/").startswith(folder)), None)
    is_missing = isinstance(error, FileNotFoundError) or isinstance(error, PermissionError) and folder in own
    if not is_missing or folder is None or os.path.isdir(folder):
        return None
    text = f"{folder.rstrip('/')} is Airflow's folder in a container image, which does not exist on this machine."
    if image_folder.problem:
        text += f" `image_folder` of leoflow.yaml has no effect: {image_folder.problem[1]}."
    file, inner = importing_file(error), path.removeprefix(folder)
    # The project's folder may be the image's `dags` folder.
    found = [os.path.join(root, name) for root in (local_modules.roots_of(file) if file else [])
             for name in (inner, inner.removeprefix("dags/")) if os.path.exists(os.path.join(root, name))]
    if not found:
        return f"{text} No folder of the project has {inner}."
    relative = os.path.relpath(found[0], os.path.dirname(file))
    return f"{text} Write the path from the file that uses it, which works there and here: pathlib.Path(__file__).parent / {relative!r}"
