"""uv, which makes the virtual environments of tasks: the one of the system, or else the one that makes the environments of
projects."""

from __future__ import annotations

import os


def offer(program: str, cache: str) -> None:
    """Makes it a command of this process and its children, behind those of the system. It need not be there yet. `cache` is
    where it keeps what it has downloaded, where nobody says otherwise."""
    folder = os.path.dirname(program)
    folders = os.environ.get("PATH", os.defpath).split(os.pathsep)
    if folder and folder not in folders:
        os.environ["PATH"] = os.pathsep.join([*folders, folder])
    os.environ.setdefault("UV_CACHE_DIR", cache)


def program() -> str:
    """The one that is there, or else the one that the server gets now."""
    # Every process offers it, and few ask for it.
    import shutil

    from leoflow.common import leoflow_server

    return shutil.which("uv") or leoflow_server.uv()
