"""Finds the package that provides a missing module."""

from __future__ import annotations

import sys

# Modules whose package has a different name.
PACKAGE_OF = {
    "attr": "attrs", "bs4": "beautifulsoup4", "cv2": "opencv-python-headless", "dateutil": "python-dateutil",
    "dotenv": "python-dotenv", "jwt": "pyjwt", "MySQLdb": "mysqlclient", "OpenSSL": "pyopenssl",
    "PIL": "pillow", "psycopg2": "psycopg2-binary", "serial": "pyserial", "skimage": "scikit-image",
    "sklearn": "scikit-learn", "yaml": "pyyaml", "zmq": "pyzmq",
}
# First parts of provider names with two parts, such as `cncf.kubernetes`.
IN_TWO_PARTS = ("apache", "atlassian", "cncf", "common", "dbt", "microsoft")


def provider_package(name: str) -> str | None:
    """Returns the provider package that contains a dotted name; None if it belongs to no provider or to Airflow itself."""
    names = name.partition("airflow.providers.")[2].split(".")
    length = 2 if names[0] in IN_TWO_PARTS else 1
    if names[0] in ("", "standard") or len(names) < length:
        return None
    return "-".join(["apache-airflow-providers", *names[:length]])


def provider_modules(provider):
    """Returns the loaded modules of a provider. If there are any, the provider is installed."""
    name = "airflow.providers." + provider.removeprefix("apache-airflow-providers-").replace("-", ".")
    return {loaded for loaded in sys.modules if f"{loaded}.".startswith(f"{name}.")}


def how_to_add(package: str) -> str:
    """Returns the commands and lines that add a dependency, for each place in which a project may list them."""
    return (f"`leoflow add {package}` in the project's folder, or in its leoflow.yaml\n    dependencies: [{package}]\n"
            "or a line in the requirements.txt, pyproject.toml or `# /// script` block that lists what it depends on")


def missing_package(error: BaseException) -> str | None:
    """Returns a hint that names the package of a missing module, or None. Follows the causes of the error."""
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
    return (f"{top} is not installed for this project. If it is a package and not a file of yours, add it:\n"
            f"{how_to_add(package)}")


def whole_name(error):
    """Returns the full name of the imported module: the error names only the first missing part."""
    import linecache
    import re

    frame = error.__traceback__
    while frame is not None:
        line = linecache.getline(frame.tb_frame.f_code.co_filename, frame.tb_lineno)
        match = re.search(re.escape(error.name) + r"(?:\.\w+)+", line)
        if match:
            return match[0]
        frame = frame.tb_next
    return error.name
