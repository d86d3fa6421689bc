"""Which package brings a module that is not installed."""

from __future__ import annotations

import sys

# Packages whose modules have other names.
PACKAGE_OF = {
    "attr": "attrs", "bs4": "beautifulsoup4", "cv2": "opencv-python-headless", "dateutil": "python-dateutil",
    "dotenv": "python-dotenv", "jwt": "pyjwt", "MySQLdb": "mysqlclient", "OpenSSL": "pyopenssl",
    "PIL": "pillow", "psycopg2": "psycopg2-binary", "serial": "pyserial", "skimage": "scikit-image",
    "sklearn": "scikit-learn", "yaml": "pyyaml", "zmq": "pyzmq",
}
# Providers whose names have two parts.
IN_TWO_PARTS = ("apache", "atlassian", "cncf", "common", "dbt", "microsoft")


def provider_package(name: str) -> str | None:
    """The package of a provider that has this module or name; None where that is not said, and for what Airflow itself has."""
    names = name.partition("airflow.providers.")[2].split(".")
    length = 2 if names[0] in IN_TWO_PARTS else 1
    if names[0] in ("", "standard") or len(names) < length:
        return None
    return "-".join(["apache-airflow-providers", *names[:length]])


def provider_modules(provider):
    """The package of that provider, if it is there; what lies in it is then no other package's."""
    name = "airflow.providers." + provider.removeprefix("apache-airflow-providers-").replace("-", ".")
    return {loaded for loaded in sys.modules if f"{loaded}.".startswith(f"{name}.")}


def how_to_add(package: str) -> str:
    """The commands and lines that add a package, wherever the project lists what it depends on."""
    return (f"`leoflow add {package}` in the project's folder, or in its leoflow.yaml\n    dependencies: [{package}]\n"
            "or a line in the requirements.txt, pyproject.toml or `# /// script` block that lists what it depends on")


def missing_package(error: BaseException) -> str | None:
    """The line that brings a module which is not installed, or None. What was raised in its place counts, too."""
    seen = []
    while not isinstance(error, ModuleNotFoundError) or not error.name:
        seen.append(error)
        if error.__cause__ is None or error.__cause__ in seen:
            return None
        error = error.__cause__
    provider = provider_package(whole_name(error))
    if provider is not None and error.name.rpartition(".")[0] not in provider_modules(provider):
        return f"{error.name} is not installed for this project. Add its provider: {how_to_add(provider)}"
    top = error.name.partition(".")[0]
    if top in sys.stdlib_module_names or top in ("airflow", "leoflow") or sys.modules.get(top):
        return None
    package = PACKAGE_OF.get(top, top.replace("_", "-"))
    return (f"{top} is not installed for this project. Where it is a package of others, and no file of yours, add it:\n"
            f"{how_to_add(package)}")


def whole_name(error):
    """The module that was asked for: the error names the first part that is missing."""
    import linecache
    import re

    place = error.__traceback__
    while place is not None:
        line = linecache.getline(place.tb_frame.f_code.co_filename, place.tb_lineno)
        found = re.search(re.escape(error.name) + r"(?:\.\w+)+", line)
        if found:
            return found[0]
        place = place.tb_next
    return error.name
