"""The secrets backend of the small package: Variables and Connections in local files. Other backends need Airflow's SDK.
<https://airflow.apache.org/docs/apache-airflow/stable/security/secrets/secrets-backend/local-filesystem-secrets-backend.html>"""

from __future__ import annotations

import json
import os

from leoflow.common import task_log
from leoflow.common.exceptions import AirflowException
from leoflow.common.hints.packages import how_to_add, provider_package
from leoflow.common.reports import describe

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

LOCAL_FILES = "airflow.secrets.local_filesystem.LocalFilesystemBackend"
# The variables that name the backend; in tasks and DAG files of Airflow, the first takes precedence.
VARIABLES = ("AIRFLOW__WORKERS__SECRETS_BACKEND", "AIRFLOW__SECRETS__BACKEND")
# The backend's argument for the path of each kind of secret.
ARGUMENTS = {"variables": "variables_file_path", "connections": "connections_file_path", "configs": "configs_file_path"}


def paths() -> dict[str, str]:
    """Returns the paths of the files, by argument. Raises AirflowException for a backend that needs Airflow's SDK and for
    invalid arguments."""
    name = next((name for name in VARIABLES if os.environ.get(name, "").strip()), None)
    if name is None:
        return {}
    backend = os.environ[name].strip()
    if backend != LOCAL_FILES:
        package = provider_package(backend) or "apache-airflow"
        raise AirflowException(
            f"{name} is {backend}. Leoflow's own small Airflow package has only {LOCAL_FILES}; "
            f"Apache Airflow's own SDK has the others: {how_to_add(package)}")
    try:
        arguments = json.loads(os.environ.get(f"{name}_KWARGS", "").strip() or "{}")
    except ValueError:
        arguments = None
    if not isinstance(arguments, dict):
        raise AirflowException(f'{name}_KWARGS is not a JSON object such as {{"{ARGUMENTS["variables"]}": "variables.json"}}')
    prefix = f"{name}_KWARG__"
    arguments.update({key[len(prefix):].lower(): value for key, value in os.environ.items() if key.startswith(prefix)})
    unknown = sorted(arguments.keys() - set(ARGUMENTS.values()))
    if unknown:
        raise AirflowException(f"{name}_KWARGS: {LOCAL_FILES} has no argument {unknown[0]!r}, but {', '.join(ARGUMENTS.values())}")
    other = next((key for key, path in arguments.items() if not isinstance(path, (str, type(None)))), None)
    if other:
        raise AirflowException(f"{name}_KWARGS: {other} is not the path of a file")
    return {key: path for key, path in arguments.items() if path}


def find(kind: str, key: str) -> Any:
    """Returns the value of a Variable or a Connection (`kind` is a key of `ARGUMENTS`), or None if the file has none. As in
    Airflow, a file that cannot be read is logged, and the value is looked up elsewhere."""
    path = paths().get(ARGUMENTS[kind])
    if path is None:
        return None
    try:
        return content(path).get(key)
    except (OSError, AirflowException) as error:
        task_log.log_event("error", task_log.OWN, f"The secrets backend cannot read {kind}: {describe(error)}")
        return None


def problems() -> list[str]:
    """Returns the files that cannot be read, with reasons."""
    found = []
    for argument, path in paths().items():
        try:
            content(path)
        except (OSError, AirflowException) as error:
            found.append(f"The secrets backend cannot read its {argument}: {describe(error)}")
    return found


def content(path: str) -> dict[str, Any]:
    """Parses a file; its name's suffix is its format. A relative path is below the working directory. Errors do not quote
    the file, which has secrets."""
    kind = os.path.splitext(path)[1].lower()
    if kind not in READERS:
        raise AirflowException(f"{path}: the name of the file must end in {', '.join(READERS)}")
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except UnicodeDecodeError:
        raise AirflowException(f"{path} is not valid UTF-8") from None
    values = READERS[kind](text, path)
    if not isinstance(values, dict):
        raise AirflowException(f"{path} is not an object with keys")
    return values


def read_env(text, path):
    """Parses `KEY=value` lines; values are verbatim."""
    values = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line or line.lstrip().startswith("#"):
            continue
        key, _, value = line.partition("=")
        if not key or not value:
            raise AirflowException(f"{path}:{number}: the line is not KEY=value")
        if key in values:
            raise AirflowException(f"{path}:{number}: {key} has several values")
        values[key] = value
    return values


def read_json(text, path):
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise AirflowException(f"{path}:{error.lineno}: {error.msg}") from None


def read_yaml(text, path):
    try:
        import yaml
    except ModuleNotFoundError:
        raise AirflowException(f"{path} needs PyYAML: {how_to_add('pyyaml')}") from None
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise AirflowException(f"{path}:{mark.line + 1 if mark else 1}: not valid YAML") from None


READERS = {".env": read_env, ".json": read_json, ".yaml": read_yaml, ".yml": read_yaml}
