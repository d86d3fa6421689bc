"""Finds the package that provides a missing module."""

from __future__ import annotations

import os
import sys

from leoflow.common import local_modules
from leoflow.common.hints import own_modules
from leoflow.common.hints.commands import command

# While a DAG file is imported: for each declaration of dependencies around it that is not read, a text that names it.
unread: list[str] = []


def package_of(name: str) -> str | None:
    """Returns the package that provides a module or a name in it, by its dotted name; None if that is unknown, and for
    Airflow's own modules."""
    table = package_names()
    while name and name not in table:
        name = name.rpartition(".")[0]
    return table.get(name)


def provider_package(name: str) -> str | None:
    """Returns the provider package that contains a dotted name; None for a name outside of providers and for the
    standard provider, which is part of Airflow."""
    return package_of(name) if name.startswith("airflow.providers.") else None


def package_names():
    """Returns the package of each known module; `scripts/import-names` writes the table."""
    if not _package_names:
        with open(os.path.join(os.path.dirname(__file__), "import_names.txt"), encoding="utf-8") as file:
            for line in file.read().splitlines():
                module, _, package = line.partition("=")
                _package_names[module] = package or module.replace("_", "-").replace(".", "-").lower()
    return _package_names


_package_names: dict[str, str] = {}


def provider_modules(provider):
    """Returns the names of the loaded modules of a provider. A provider with a loaded module is installed."""
    name = "airflow.providers." + provider.removeprefix("apache-airflow-providers-").replace("-", ".")
    return {loaded for loaded in sys.modules if f"{loaded}.".startswith(f"{name}.")}


def add_command(*packages: str) -> str:
    """Returns the command that adds dependencies to the project whose code runs."""
    import shlex

    project = local_modules.project_name()
    names = " ".join(packages)
    if project is None:
        return f"`{command(f'add {names}')}` in the project's folder"
    return f"`{command(f'add {names} --project {shlex.quote(project)}')}`"


def how_to_add(*packages: str) -> str:
    """Returns a text with the command that adds dependencies, the lines for each file that may list them, and the
    declarations that are not read."""
    text = (f"{add_command(*packages)}, or in its leoflow.yaml\n    dependencies: [{', '.join(packages)}]\n"
            "or a line in the requirements.txt, pyproject.toml or `# /// script` block that lists what it depends on")
    return "\n".join([text, *unread])


def missing_package(error: ImportError) -> tuple[str, str | None, str] | None:
    """Returns the missing module, the package that provides it (None for a module of the project) and a hint; None for an
    error with another cause."""
    if not isinstance(error, ModuleNotFoundError) or not error.name:
        return None
    provider = provider_package(imported_names(error)[0])
    if provider is not None and error.name.rpartition(".")[0] not in provider_modules(provider):
        text = f"{error.name} is not installed for this project. Add its provider: {how_to_add(provider)}"
        return error.name, provider, text
    top = error.name.partition(".")[0]
    if top in sys.stdlib_module_names or top in ("airflow", "leoflow"):
        return None
    module, *names = imported_names(error)
    packages = list(dict.fromkeys(filter(None, map(package_of, names or [module]))))
    if sys.modules.get(top):
        # A package with other modules of that namespace is installed, or the module is missing in an installed package.
        packages = packages if package_of(top) is None else []
        return (error.name, packages[0], f"{error.name} is not installed for this project. {is_added(packages)}") if packages else None
    own = own_modules.describe(error, top)
    if own:
        return top, None, own
    text = f"{top} is not installed for this project, and no folder of the project has a module of that name."
    return top, packages[0] if packages else top.replace("_", "-"), f"{text} {is_added(packages)}"


def is_added(packages):
    if packages:
        return f"If it is a package, add it:\n{how_to_add(*packages)}"
    return f"If it is of a package, add that by its name, which is not known here:\n{how_to_add('PACKAGE')}"


def imported_names(error: ImportError) -> list[str]:
    """Returns the full name of the module in the import that failed (the error names only its first missing part), then
    the names that it imports from the module, each as `module.name`."""
    import linecache

    frame = error.__traceback__
    while frame is not None:
        names = names_in(linecache.getline(frame.tb_frame.f_code.co_filename, frame.tb_lineno), error.name)
        if names:
            return names
        frame = frame.tb_next
    return [error.name]


def names_in(line: str, name: str) -> list[str]:
    """Parses an import in a line of code: returns the module that is or is below `name`, then the names imported from
    it, each as `module.name`; an empty list if the line does not name such a module."""
    import re

    match = re.search(rf"(?<![\w.]){re.escape(name)}(?:\.\w+)*(?![\w.])", line)
    if not match:
        return []
    module = match[0]
    _, is_from, names = line[match.end():].partition(" import ")
    return [module, *(f"{module}.{word}" for word in re.findall(r"\w+", names) if is_from)]
