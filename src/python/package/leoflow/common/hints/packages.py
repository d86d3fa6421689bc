"""Finds the package that provides a missing module."""

from __future__ import annotations

import sys

from leoflow.common import local_modules
from leoflow.common.hints import own_modules
from leoflow.common.hints.commands import command

# Modules whose package has a different name.
PACKAGE_OF = {
    "attr": "attrs", "bs4": "beautifulsoup4", "cv2": "opencv-python-headless", "dateutil": "python-dateutil",
    "dotenv": "python-dotenv", "jwt": "pyjwt", "MySQLdb": "mysqlclient", "OpenSSL": "pyopenssl",
    "PIL": "pillow", "psycopg2": "psycopg2-binary", "serial": "pyserial", "skimage": "scikit-image",
    "sklearn": "scikit-learn", "yaml": "pyyaml", "zmq": "pyzmq",
}
# First parts of the provider names that have two parts, such as `cncf.kubernetes`.
IN_TWO_PARTS = ("apache", "atlassian", "cncf", "common", "dbt", "microsoft")
# While a DAG file is imported: for each declaration of dependencies around it that is not read, a text that names it.
unread: list[str] = []


def provider_package(name: str) -> str | None:
    """Returns the provider package that contains a dotted name; None for a name outside of providers and for the
    standard provider, which is part of Airflow."""
    names = name.partition("airflow.providers.")[2].split(".")
    length = 2 if names[0] in IN_TWO_PARTS else 1
    if names[0] in ("", "standard") or len(names) < length:
        return None
    return "-".join(["apache-airflow-providers", *names[:length]])


def provider_modules(provider):
    """Returns the names of the loaded modules of a provider. A provider with a loaded module is installed."""
    name = "airflow.providers." + provider.removeprefix("apache-airflow-providers-").replace("-", ".")
    return {loaded for loaded in sys.modules if f"{loaded}.".startswith(f"{name}.")}


def add_command(package: str) -> str:
    """Returns the command that adds a dependency to the project whose code runs."""
    import shlex

    project = local_modules.project_name()
    if project is None:
        return f"`{command(f'add {package}')}` in the project's folder"
    return f"`{command(f'add {package} --project {shlex.quote(project)}')}`"


def how_to_add(package: str) -> str:
    """Returns a text with the command that adds a dependency, the lines for each file that may list it, and the
    declarations that are not read."""
    text = (f"{add_command(package)}, or in its leoflow.yaml\n    dependencies: [{package}]\n"
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
    if top in sys.stdlib_module_names or top in ("airflow", "leoflow") or sys.modules.get(top):
        return None
    own = own_modules.describe(error, top)
    if own:
        return top, None, own
    package = PACKAGE_OF.get(top, top.replace("_", "-"))
    return top, package, (f"{top} is not installed for this project, and no folder of the project has a module of that name. "
                          f"If it is a package, add it:\n{how_to_add(package)}")


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
