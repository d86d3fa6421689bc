"""`leoflow env link`: writes a project's `.venv`, a virtual environment of the project's Python for editors. Its own
site-packages folder is empty but for a module that leads to the project's environment, which stays as it is whatever
pip or uv install into `.venv`."""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import site
import sys
import sysconfig
import venv

from leoflow.common.local_modules import LINK_MARKER
from leoflow.outside import stubs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# Python imports it at its start, because a .pth file names it.
START = '''"""Written by `leoflow env link`, and again when the project's environment changes."""

import sys

sys.path.append({package!r})
try:
    from leoflow.outside import startup
except ImportError as error:
    sys.stderr.write(f"warning: this virtual environment is out of date ({{error}}): run `{command}`\\n")
else:
    startup.enter({options!r})
'''
# A shell runs the first three lines, and Python reads them as a string: a path in `#!` must be short and without blanks.
SCRIPT = '''#!/bin/sh
""":"
exec "$(dirname -- "$0")/python" "$0" "$@"
":"""
import sys

from {module} import {function}

sys.exit({entry}())
'''


def main(options: dict[str, Any]) -> None:
    try:
        link(options)
    except OSError as error:
        sys.exit(str(error))


def link(options):
    folder, marker, inputs = options["venv"], {**options["marker"], "venv": options["venv"]}, options["marker"]["inputs"]
    before = read_marker(folder)
    scripts = before.get("scripts", [])
    os.makedirs(folder, exist_ok=True)
    write(os.path.join(folder, LINK_MARKER), json.dumps({**marker, "scripts": scripts, "is_complete": False}), is_durable=True)
    # A project that moved has scripts with its old path.
    make(folder, is_new=not before.get("is_complete") or before.get("venv") != folder)
    packages = os.path.join(folder, "lib", os.path.basename(sysconfig.get_path("stdlib")), "site-packages")
    types = os.path.join(folder, "lib", "leoflow-types")
    write_stubs(os.path.join(packages, "airflow-stubs"), os.path.join(types, "airflow"), bool(options["project_airflow_home"]))
    start = START.format(package=inputs["package"], command=options["command"], options={
        **inputs, "types": types, "project_airflow_home": options["project_airflow_home"],
        "environment": [*([site.getusersitepackages()] if site.ENABLE_USER_SITE else []), *site.getsitepackages()],
    })
    write(os.path.join(packages, "_leoflow_link.py"), start)
    write(os.path.join(packages, "leoflow.pth"), "import _leoflow_link\n")
    # As uv and newer versions of Python do, so that `git status` does not list the folder.
    write(os.path.join(folder, ".gitignore"), "*\n")
    # Airflow's own dag.test() searches the project for DAG files.
    write(os.path.join(folder, ".airflowignore"), "*\n")
    scripts = write_scripts(os.path.join(folder, "bin"), scripts, console_scripts(), programs())
    write(os.path.join(folder, LINK_MARKER), json.dumps({**marker, "scripts": scripts, "is_complete": True}), is_durable=True)


def read_marker(folder):
    try:
        with open(os.path.join(folder, LINK_MARKER), encoding="utf-8") as file:
            return json.load(file)
    except (FileNotFoundError, ValueError):
        return {}


def make(folder, is_new):
    """Makes the virtual environment, or changes its Python. Each link to a Python is replaced as a whole, because a Python
    may start at any time."""
    # The environment's program is a link to its Python; `sys._base_executable` may name a file that does not exist.
    program = sys._base_executable = os.path.realpath(sys.executable)
    name, programs = os.path.basename(program), os.path.join(folder, "bin")
    os.makedirs(programs, exist_ok=True)
    # That of the program is first, because the others lead to it.
    links = {name: program}
    for link in ("python", "python3", f"python3.{sys.version_info[1]}"):
        links.setdefault(link, name)
    changed = [replace_link(os.path.join(programs, link), target) for link, target in links.items()]
    for other in os.listdir(programs):
        if other.startswith("python") and other not in links and os.path.islink(os.path.join(programs, other)):
            os.remove(os.path.join(programs, other))
    if is_new or any(changed):
        venv.EnvBuilder(symlinks=True).create(folder)
        with open(os.path.join(folder, "pyvenv.cfg"), "a", encoding="utf-8") as file:
            # `linked_venv.rs` searches for it: a configuration without it is of another program.
            file.write("leoflow-link = true\n")


def replace_link(link, target):
    """Makes a link lead to the target; returns whether it changes."""
    if os.path.islink(link) and os.readlink(link) == target:
        return False
    partial = f"{link}.{os.getpid()}.tmp"
    os.symlink(target, partial)
    os.replace(partial, link)
    return True


def write_stubs(stubs_folder, modules_folder, has_airflow):
    """Writes a stub for each module of the small package's `airflow`, and an empty module of the same name, without which
    pyright warns that the source is missing. The modules are last in `sys.path`, so that no process imports them."""
    for folder in (stubs_folder, modules_folder) if has_airflow else ():
        shutil.rmtree(folder, ignore_errors=True)
    for path, text in () if has_airflow else stubs.texts().items():
        for folder, name, content in (stubs_folder, "__init__.pyi", text), (modules_folder, "__init__.py", ""):
            os.makedirs(os.path.join(folder, path), exist_ok=True)
            write(os.path.join(folder, path, name), content)


def console_scripts():
    """Returns the commands that the environment's packages install; none for a Python without an environment, whose
    commands are in the user's PATH."""
    if sys.prefix == sys.base_prefix:
        return []
    found = importlib.metadata.entry_points(group="console_scripts")
    return {entry.name: entry for entry in found if os.sep not in entry.name}.values()


def programs():
    """Returns the environment's commands, without Python and the scripts that activate the environment; none for a Python
    without an environment."""
    folder = os.path.dirname(sys.executable)
    if sys.prefix == sys.base_prefix:
        return {}
    found = {name: os.path.join(folder, name) for name in os.listdir(folder) if not name.lower().startswith(("python", "activate"))}
    return {name: path for name, path in found.items() if os.access(path, os.X_OK) and os.path.isfile(path)}


def write_scripts(folder, before, entries, programs):
    """Writes the commands of packages and removes those that are gone; returns their names. Keeps files of others. An
    entry point starts the Python of `folder`, which has the project's variables; other commands are links."""
    names = []
    for entry in entries:
        path = os.path.join(folder, entry.name)
        if entry.name in before or not os.path.lexists(path):
            module, _, attribute = entry.value.partition("[")[0].strip().partition(":")
            function = attribute.strip().partition(".")[0]
            write(path, SCRIPT.format(module=module.strip(), function=function, entry=attribute.strip()), 0o755)
            names.append(entry.name)
    for name, program in programs.items():
        path = os.path.join(folder, name)
        if name not in names and (name in before or not os.path.lexists(path)):
            replace_link(path, program)
            names.append(name)
    for name in set(before).difference(names):
        if os.path.lexists(os.path.join(folder, name)):
            os.remove(os.path.join(folder, name))
    return sorted(names)


def write(path, text, mode=0o644, is_durable=False):
    """Replaces a file as a whole, because a Python may start at any time. Leaves an equal file as it is. A durable file
    keeps its content if the machine loses power."""
    try:
        with open(path, encoding="utf-8") as file:
            if file.read() == text:
                return
    except (FileNotFoundError, ValueError):
        pass
    partial = f"{path}.{os.getpid()}.tmp"
    try:
        with open(partial, "w", encoding="utf-8") as file:
            os.chmod(partial, mode)
            file.write(text)
            file.flush()
            if is_durable:
                os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        if os.path.lexists(partial):
            os.remove(partial)
