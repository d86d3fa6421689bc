"""Virtual environments for single tasks, made by uv: new ones that are gone afterwards, or ones that are kept in a folder."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

from leoflow.common import task_log, uv
from leoflow.common.exceptions import AirflowException
from leoflow.common.masking import hide

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

COMPLETE = "install_complete_marker.json"
# Airflow's logger of what is done for such tasks.
UTILITY = "airflow.providers.standard.utils.python_virtualenv"


class Wanted:
    """What an environment consists of."""

    def __init__(self, requirements: list[str], python_version: str | None, has_system_packages: bool,
                 options: list[str], index_urls: list[str] | None):
        self.requirements = sorted(requirements)
        self.python_version = python_version
        self.has_system_packages = has_system_packages
        self.options = options
        self.index_urls = index_urls

    def described(self, key: str) -> str:
        """Two with the same description may share one. `key` is the user's own, to have another one made."""
        return json.dumps({**vars(self), "key": key, "own": sys.version_info[:2]}, sort_keys=True)

    def make(self, folder: str) -> str:
        """Makes it in that folder, which is new; returns its Python. Raises AirflowException: uv has said why in the log."""
        program = uv.program()
        system = ["--system-site-packages"] if self.has_system_packages else []
        run([program, "venv", "--quiet", "--no-project", *system, "--python", self.python_version or sys.executable, folder])
        python = os.path.join(folder, "bin", "python")
        if self.requirements:
            listed = os.path.join(folder, "requirements.txt")
            with open(listed, "w", encoding="utf-8") as file:
                file.write("\n".join(self.requirements) + "\n")
            variables = index_variables(self.index_urls)
            # No index at all is wanted.
            options = ["--no-index", *self.options] if self.index_urls == [] else self.options
            run([program, "pip", "install", "--quiet", "--no-progress", "--python", python, *options, "-r", listed], variables)
        return python


def index_variables(urls):
    """Not as arguments, which everybody can read: an address may hold a password."""
    if not urls:
        return {}
    return {"UV_DEFAULT_INDEX": urls[0], **({"UV_INDEX": " ".join(urls[1:])} if urls[1:] else {})}


def run(command, variables=None):
    task_log.say("info", UTILITY, f"Executing cmd: {hide(' '.join(command))}")
    environment = {**os.environ, **(variables or {})}
    # What it says is no error, wherever it writes it.
    code = subprocess.run(command, stdin=subprocess.DEVNULL, stderr=subprocess.STDOUT, env=environment).returncode
    if code != 0:
        raise AirflowException(f"the virtual environment could not be made: {' '.join(command[:3])} … ended with exit status {code}")


def cached(wanted: Wanted, cache: str, key: str) -> str:
    """The Python of the one that is kept in `cache`, made where it is not there whole. Others that want it wait meanwhile."""
    import fcntl
    import hashlib

    name = f"venv-{hashlib.sha256(wanted.described(key).encode()).hexdigest()[:16]}"
    folder = os.path.join(cache, name)
    os.makedirs(cache, exist_ok=True)
    with open(f"{folder}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        python = os.path.join(folder, "bin", "python")
        if os.path.exists(os.path.join(folder, COMPLETE)) and os.path.exists(python):
            task_log.say("info", UTILITY, f"Reusing cached Python virtual environment in {folder}")
            return python
        # What was begun by one that was killed, or is of a Python that is gone.
        shutil.rmtree(folder, ignore_errors=True)
        try:
            python = wanted.make(folder)
            with open(os.path.join(folder, COMPLETE), "w", encoding="utf-8") as file:
                file.write(name)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
    return python


def with_temporary(wanted: Wanted, use: Callable[[str], object]) -> object:
    """Calls `use` with the Python of one that is gone afterwards."""
    import tempfile

    with tempfile.TemporaryDirectory(prefix="leoflow-venv") as folder:
        return use(wanted.make(os.path.join(folder, "venv")))
