"""Finds uv, which creates the virtual environments of tasks: the user's own uv on PATH, or the one that Leoflow uses
for projects."""

from __future__ import annotations

import os


def add_to_path(program: str, cache: str) -> None:
    """Appends the folder of `program`, which may not exist yet, to PATH, so that the user's own uv takes precedence.
    Sets UV_CACHE_DIR to `cache`, unless it is set."""
    folder = os.path.dirname(program)
    folders = os.environ.get("PATH", os.defpath).split(os.pathsep)
    if folder and folder not in folders:
        os.environ["PATH"] = os.pathsep.join([*folders, folder])
    os.environ.setdefault("UV_CACHE_DIR", cache)


def program() -> str:
    """Returns the path of the uv on PATH, or else of the one that the server downloads."""
    # Imported here, because few processes need them.
    import shutil

    from leoflow.common import leoflow_server

    return shutil.which("uv") or leoflow_server.uv()
