"""Loads `.env` files of the project and the workspace into the environment of DAG files and tasks."""

from __future__ import annotations

import codecs
import json
import os
import stat
import sys
import time

from leoflow.entry.env_file import EnvFile

# Bytes; a larger file is not read.
LARGEST = 256 * 1024
# Prefixes of variables that the dynamic loader and the C library read only at process start.
READ_AT_START = ("GLIBC_TUNABLES", "LD_", "MALLOC_")
# The folder that contains the package. In a home, its subfolder has the command `airflow`, see `package.rs`.
PACKAGE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
COMMANDS = os.path.join(PACKAGE, "commands")
# Environment variable that passes `_before` through the exec of `load_first`.
BEFORE = "LEOFLOW_VARIABLES_BEFORE"
# For each variable that a file sets, its value before, or None if it was not set.
_before = json.loads(os.environ.pop(BEFORE, "{}"))


def load_first(roots: list[str]) -> None:
    """Loads the variables before any module that reads them is imported. Re-executes the process if one of them is read
    only at process start."""
    before = dict(os.environ)
    load(roots, warn=False)
    at_start = read_at_start()
    if at_start != {name: before.get(name) for name in at_start}:
        own = {name: value for name, value in _before.items() if name in at_start}
        os.execve(sys.executable, sys.orig_argv, {**before, **at_start, BEFORE: json.dumps(own)})


def read_at_start() -> dict[str, str]:
    """Returns the variables of this process that are read only at process start."""
    return {name: value for name, value in os.environ.items() if name.startswith(READ_AT_START)}


def load(roots: list[str], warn: bool = True) -> None:
    """Loads the `.env` files, whose variables override existing ones; the nearest file takes precedence."""
    zone = os.environ.get("TZ")
    read(roots, sys.stderr.write if warn else len)
    if os.environ.get("TZ") != zone:
        # The C library caches the time zone.
        time.tzset()


def read(roots, write_warning):
    """Reads the files into the environment, the farthest first. Calls `write_warning` with each warning."""
    for path, file in files(roots):
        if isinstance(file, UnusableFile):
            write_warning(f"warning: {file}\n")
            continue
        for line, problem in file.problems:
            write_warning(f"warning: {path}:{line} {problem}\n")
        for name, value in file.variables.items():
            _before.setdefault(name, os.environ.get(name))
            os.environ[name] = value


def files(roots):
    """Yields each path with its EnvFile or UnusableFile, the farthest first. A process reads the files more than once,
    so a reference means the value before the first time: `PATH=/opt/bin:${PATH}` does not grow each time."""
    farther = {}

    def look_up(name):
        return farther[name] if name in farther else _before[name] if name in _before else os.environ.get(name)

    for path in reversed(paths(roots)):
        try:
            text = text_of(path)
        except UnusableFile as error:
            yield path, error
            continue
        if text is not None:
            file = EnvFile(text, look_up)
            farther.update(file.variables)
            yield path, file


def paths(roots):
    """Returns the paths of the files, nearest first, existing or not: `.env` in each root, and for a project in a workspace
    the one beside its folder, such as `sales.env`, which takes precedence over the project's own."""
    beside = [f"{roots[0]}.env"] if len(roots) > 1 else []
    return [*beside, *(os.path.join(root, ".env") for root in roots)]


class UnusableFile(Exception):
    """A file of which no variable can be read."""


class UnreadableFile(UnusableFile):
    """The operating system refuses to read the file, which may belong to another program, such as docker compose of
    root."""


def text_of(path):
    """Returns the text of a `.env` file; `None` if there is none."""
    try:
        # Reads only regular files: a pipe may never end. Also tries to open a missing file, so that the audit hook of
        # `parse.py` records that the DAGs depend on it.
        if os.path.exists(path) and not stat.S_ISREG(os.stat(path).st_mode):
            return None
        with open(path, "rb") as file:
            raw = file.read(LARGEST + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UnreadableFile(f"{path} cannot be read: {error.strerror or error}; none of its variables is set") from None
    if len(raw) > LARGEST:
        raise UnusableFile(f"{path} is larger than {LARGEST // 1024} KiB; none of its variables is set")
    try:
        # Windows PowerShell writes UTF-16 with a byte order mark.
        return raw.decode("utf-16" if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise UnusableFile(f"{path}:{line} is not valid UTF-8; none of its variables is set. Save the file as UTF-8.") from None


def problems(roots: list[str]) -> tuple[list[str], list[str]]:
    """Returns the errors (values are missing or cut off) and the warnings about the `.env` files. Each names file and
    line."""
    errors, warnings = [], []
    for path, file in files(roots):
        if isinstance(file, UnusableFile):
            (warnings if isinstance(file, UnreadableFile) else errors).append(str(file))
        else:
            (errors if file.is_cut else warnings).extend(f"{path}:{line} {problem}" for line, problem in file.problems)
    return errors, warnings


def python_path() -> list[str]:
    """Returns the folders of `PYTHONPATH`, which our Python processes ignore at startup (`-E`)."""
    return [os.path.abspath(folder) for folder in os.environ.get("PYTHONPATH", "").split(os.pathsep) if folder]


def own_commands_first() -> None:
    """Puts the command `airflow` of this instance and the folder of this process's Python first in PATH."""
    folders = os.environ.get("PATH", "").split(os.pathsep)
    if COMMANDS in folders:
        os.environ["PATH"] = os.pathsep.join(folder for folder in folders if folder != COMMANDS)
    own_python_first()
    if os.path.isdir(COMMANDS):
        put_first(COMMANDS)


def own_python_first() -> None:
    """Puts the folder of this process's Python first in PATH, so that `python`, `python3` and the commands of its
    environment take precedence."""
    own_folder = os.path.dirname(sys.executable)
    if sys.prefix != sys.base_prefix:
        os.environ["VIRTUAL_ENV"] = sys.prefix
        if os.environ.get("PATH", "").split(os.pathsep)[0] != own_folder:
            put_first(own_folder)
        return
    own = os.path.realpath(sys.executable)
    if first_program("python3") != own:
        put_first(own_folder)
    # Many systems install no `python`, or another one. The script runs the first `python3`.
    script = os.path.join(os.path.dirname(os.path.dirname(os.path.realpath(__file__))), "bin", "python")
    if first_program("python") not in (own, script) and first_program("python3") == own:
        put_first(os.path.dirname(script))


def first_program(name):
    """Returns the real path of the first program of this name in PATH; an empty string if there is none."""
    paths = (os.path.join(folder, name) for folder in os.environ.get("PATH", "").split(os.pathsep))
    return next((os.path.realpath(path) for path in paths if os.access(path, os.X_OK)), "")


def put_first(folder):
    os.environ["PATH"] = os.pathsep.join(filter(None, (folder, os.environ.get("PATH"))))
