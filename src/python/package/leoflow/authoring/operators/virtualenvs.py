"""Virtual environments for single tasks, which uv creates in a temporary folder or in a cache folder."""

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

# Marker file of a cached environment, written last: an environment without it is incomplete.
COMPLETE = "install_complete_marker.json"
# Airflow's logger for virtual environments.
VENV_LOGGER = "airflow.providers.standard.utils.python_virtualenv"


class VenvSpec:
    """The specification of an environment."""

    def __init__(self, requirements: list[str], python_version: str | None, has_system_packages: bool,
                 options: list[str], index_urls: list[str] | None):
        self.requirements = sorted(requirements)
        self.python_version = python_version
        self.has_system_packages = has_system_packages
        self.options = options
        self.index_urls = index_urls

    def cache_key(self, key: str) -> str:
        """Returns the text that identifies a cached environment: equal specifications share one. The user changes `key`
        to force a new environment."""
        return json.dumps({**vars(self), "key": key, "own": sys.version_info[:2]}, sort_keys=True)

    def make(self, folder: str) -> str:
        """Creates the environment in a new folder; returns the path of its Python. Raises AirflowException if uv fails;
        uv's output is in the task's log."""
        program = uv.program()
        system = ["--system-site-packages"] if self.has_system_packages else []
        run([program, "venv", "--quiet", "--no-project", *system, "--python", self.python_version or sys.executable, folder])
        python = os.path.join(folder, "bin", "python")
        if self.requirements:
            requirements_file = os.path.join(folder, "requirements.txt")
            with open(requirements_file, "w", encoding="utf-8") as file:
                file.write("\n".join(self.requirements) + "\n")
            variables = index_variables(self.index_urls)
            # An empty list means that no index is used.
            options = ["--no-index", *self.options] if self.index_urls == [] else self.options
            run([program, "pip", "install", "--quiet", "--no-progress", "--python", python, *options, "-r", requirements_file], variables)
        return python


def index_variables(urls):
    """Returns the index URLs as variables for uv: other users can read arguments, and a URL may contain a password."""
    if not urls:
        return {}
    return {"UV_DEFAULT_INDEX": urls[0], **({"UV_INDEX": " ".join(urls[1:])} if urls[1:] else {})}


def run(command, variables=None):
    task_log.log_event("info", VENV_LOGGER, f"Executing cmd: {hide(' '.join(command))}")
    environment = {**os.environ, **(variables or {})}
    # uv writes progress to stderr, which the task's log would show as errors.
    code = subprocess.run(command, stdin=subprocess.DEVNULL, stderr=subprocess.STDOUT, env=environment).returncode
    if code != 0:
        raise AirflowException(f"failed to create the virtual environment: `{' '.join(command[:3])} …` exited with status {code}")


def cached(spec: VenvSpec, cache: str, key: str) -> str:
    """Returns the Python of the environment cached in the folder `cache`; creates a missing or incomplete environment.
    A file lock makes other tasks wait meanwhile."""
    import fcntl
    import hashlib

    name = f"venv-{hashlib.sha256(spec.cache_key(key).encode()).hexdigest()[:16]}"
    folder = os.path.join(cache, name)
    os.makedirs(cache, exist_ok=True)
    with open(f"{folder}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        python = os.path.join(folder, "bin", "python")
        if os.path.exists(os.path.join(folder, COMPLETE)) and os.path.exists(python):
            task_log.log_event("info", VENV_LOGGER, f"Reusing cached Python virtual environment in {folder}")
            return python
        # The folder is the leftover of a killed task, or its Python no longer exists.
        shutil.rmtree(folder, ignore_errors=True)
        try:
            python = spec.make(folder)
            with open(os.path.join(folder, COMPLETE), "w", encoding="utf-8") as file:
                file.write(name)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
    return python


def with_temporary(spec: VenvSpec, use: Callable[[str], object]) -> object:
    """Calls `use` with the Python of a temporary environment."""
    import tempfile

    with tempfile.TemporaryDirectory(prefix="leoflow-venv") as folder:
        return use(spec.make(os.path.join(folder, "venv")))
