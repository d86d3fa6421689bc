"""Finds the user's own module that an import did not find, or that an installed one of the same name hides. The hint
then names this module, not a package of the same name."""

from __future__ import annotations

import os
import sys
from types import ModuleType

from leoflow.common import local_modules

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

# Names that Airflow projects often give to their own modules. Packages with these names exist, but are unrelated.
OWN_NAMES = frozenset((
    "common", "config", "configs", "constants", "custom_operators", "dags", "helpers", "hooks", "include", "jobs", "lib", "libs",
    "modules", "operators", "plugins", "scripts", "sensors", "settings", "shared", "sql", "src", "tasks", "utilities", "utils",
))
# Limits of the search: levels of folders, and number of folders.
LEVELS, MAX_FOLDERS = 4, 2000
NOT_SEARCHED = frozenset(("node_modules", "site-packages", "venv", "__pycache__"))


def describe(error: ImportError, name: str) -> str | None:
    """Returns a text that says where a module of that name is and how to import it; None if there is no such module and
    the name may be a package's."""
    file = importing_file(error)
    roots = local_modules.roots_of(file) if file else []
    searched = "the module search path of this file has " + ", ".join(roots)
    for root in roots:
        if os.path.basename(root) == name:
            return f"{name} is the folder {root} itself. Its modules are imported without `{name}.`: {searched}"
    # The project first, then the workspace.
    top, found = next(((top, found) for top in roots[-2:] for found in places(top, name)), (None, None))
    if found is not None:
        folder = os.path.dirname(found)
        within = next(root for root in roots if found.startswith(root.rstrip(os.sep) + os.sep))
        dotted = os.path.relpath(os.path.splitext(found)[0], within).replace(os.sep, ".")
        ways = f"import it as `{dotted}`" if dotted.replace(".", "").isidentifier() else ""
        ways = f"{ways}, or add a line" if ways else "Add a line"
        return (f"{name} was found at {os.path.relpath(found, top)}, which is in no folder that is searched: {searched}.\n"
                f"{ways[0].upper()}{ways[1:]} to the project's .env: PYTHONPATH={folder}")
    if name in OWN_NAMES:
        return f"No folder of the project has a module {name}: {searched or 'none'}"
    return None


def hidden(error: ImportError | AttributeError) -> str | None:
    """Returns a text that says which installed module hides the project's own one of the same name, if what is missing in
    the installed one may be in that; else None."""
    file, module = importing_file(error), getattr(error, "obj", None)
    name = module.__name__ if isinstance(module, ModuleType) else isinstance(error, ImportError) and error.name
    top = name.partition(".")[0] if name else ""
    loaded = sys.modules.get(top)
    installed = next(iter(getattr(loaded, "__path__", ())), None) or getattr(loaded, "__file__", None)
    if not file or not installed or not local_modules.is_entered():
        return None
    own = own_place(top, os.path.join(local_modules.roots_of(file)[-1], ""))
    if own is None or os.path.splitext(own)[0] == os.path.splitext(installed)[0]:
        return None
    root = local_modules.roots_of(own)[-2:][0]
    dotted = os.path.relpath(os.path.splitext(own)[0], root).replace(os.sep, ".")
    way = f"Import it as `{dotted}`, or give it" if "." in dotted else "Give it"
    return f"{own} is hidden by {owner(top)} ({installed}), which is imported first, as in Airflow. {way} a name of its own"


def own_place(name, outermost):
    """Returns the file or folder of a module in the folders of `sys.path` below `outermost`, without environments."""
    for folder in sys.path:
        if os.path.join(folder, "").startswith(outermost) and "site-packages" not in folder:
            base = os.path.join(folder, name)
            if os.path.isfile(f"{base}.py") or has_python(base):
                return f"{base}.py" if os.path.isfile(f"{base}.py") else base
    return None


def owner(top):
    """Names what a module was installed with."""
    from importlib.metadata import packages_distributions

    packages = packages_distributions().get(top)
    return f"the installed package {packages[0]}" if packages else f"Python's own module {top}" if top in sys.stdlib_module_names else top


def importing_file(error: BaseException) -> str | None:
    """Returns the innermost file of the traceback outside of `site-packages`, or None."""
    file, frame = None, error.__traceback__
    while frame is not None:
        name = frame.tb_frame.f_code.co_filename
        if os.path.isabs(name) and "site-packages" not in name:
            file = name
        frame = frame.tb_next
    return file


def places(top: str, name: str) -> Iterator[str]:
    """Yields the files and folders below `top` that may be a module of that name, the least nested first."""
    folders, count = [top], 0
    for _ in range(LEVELS):
        deeper = []
        for folder in folders:
            try:
                with os.scandir(folder) as listing:
                    entries = sorted(listing, key=lambda entry: entry.name)
            except OSError:
                continue
            for entry in entries:
                if entry.name == f"{name}.py" or entry.name == name and has_python(entry.path):
                    yield entry.path
                elif entry.name[:1] != "." and entry.name not in NOT_SEARCHED and entry.is_dir(follow_symlinks=False):
                    deeper.append(entry.path)
            count += 1
            if count >= MAX_FOLDERS:
                return
        folders = deeper


def has_python(folder):
    """True for a folder with a Python file in it or in one of its direct subfolders."""
    try:
        names = sorted(os.listdir(folder))
        return any(name.endswith(".py") for name in names) or any(
            name.endswith(".py") for inner in names if os.path.isdir(os.path.join(folder, inner))
            for name in os.listdir(os.path.join(folder, inner)))
    except OSError:
        return False
