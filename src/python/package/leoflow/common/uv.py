"""uv, which creates the virtual environments of tasks: the system's, or else the one that Leoflow uses for projects."""

from __future__ import annotations

import os


def offer(program: str, cache: str) -> None:
    """Appends uv's folder to PATH, after the system's; the program may not exist yet. `cache` is uv's cache folder,
    unless UV_CACHE_DIR is set."""
    folder = os.path.dirname(program)
    folders = os.environ.get("PATH", os.defpath).split(os.pathsep)
    if folder and folder not in folders:
        os.environ["PATH"] = os.pathsep.join([*folders, folder])
    os.environ.setdefault("UV_CACHE_DIR", cache)


def program() -> str:
    """Returns the installed uv, or else the one that the server downloads."""
    # Imported here because few processes need it.
    import shutil

    from leoflow.common import leoflow_server

    return shutil.which("uv") or leoflow_server.uv()
