"""Classes that Airflow's settings name, in the project's `.env`, the environment, or `airflow.cfg`. The project may
define them, so they are imported only once its folders are on the module search path. A class that cannot be imported
is an import error of the DAG file."""

from __future__ import annotations

import configparser
import contextlib
import importlib
import os

from leoflow.common.exceptions import AirflowException
from leoflow.common.reports import describe

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

XCOM_BACKEND = ("core", "xcom_backend")
LOGGING_CONFIG = ("logging", "logging_config_class")
# Settings whose classes Airflow imports in processes of tasks, triggers and DAG files; those that `import airflow`
# needs come first.
SETTINGS = (
    ("secrets", "backend"), LOGGING_CONFIG, ("logging", "secret_mask_adapter"), XCOM_BACKEND, ("core", "hostname_callable"),
    ("email", "email_backend"), ("metrics", "stat_name_handler"), ("metrics", "statsd_custom_client_path"),
    ("sentry", "before_send"), ("sentry", "transport"), ("workers", "secrets_backend"),
)


def variable(section: str, key: str) -> str:
    return f"AIRFLOW__{section}__{key}".upper()


def configured() -> configparser.RawConfigParser:
    """Reads `airflow.cfg`, ignoring errors, which Airflow itself reports."""
    parser = configparser.RawConfigParser(strict=False)
    with contextlib.suppress(OSError, UnicodeDecodeError, configparser.Error):
        parser.read(os.environ.get("AIRFLOW_CONFIG") or [], encoding="utf-8")
    return parser


def named() -> dict[tuple[str, str], str]:
    """Returns the dotted names of the classes by setting, without classes of Airflow itself."""
    parser, names = configured(), {}
    for section, key in SETTINGS:
        # A variable overrides the file, even if it is empty.
        text = os.environ.get(variable(section, key))
        text = (parser.get(section, key, fallback="") if text is None else text).strip()
        if text and (not text.startswith("airflow.") or text.startswith("airflow.providers.")):
            names[section, key] = text
    return names


def load(section: str, key: str, name: str) -> object:
    """Imports a class like Airflow; raises the same errors."""
    # Applies the logging configuration, which may itself import modules of Airflow.
    importlib.import_module("airflow")
    if (section, key) == XCOM_BACKEND:
        # The backend's module may import DAGs. Because of circular imports, only Airflow's module can import it then.
        return importlib.import_module("airflow.sdk.execution_time.xcom").XCom
    module, _, attribute = name.rpartition(".")
    if not module:
        raise ImportError(f"{name} has no module: a dotted name is required")
    value = getattr(importlib.import_module(module), attribute)
    if (section, key) == LOGGING_CONFIG and not isinstance(value, dict):
        raise TypeError(f"{name} is not a dict")
    return value


def check() -> None:
    """Raises AirflowException for the first class that cannot be imported."""
    for (section, key), name in named().items():
        try:
            load(section, key, name)
        except Exception as error:
            # The message of AirflowConfigException lacks the reason, which is in its context.
            cause = error.__context__ if type(error).__name__ == "AirflowConfigException" else None
            cause = cause or error
            raise AirflowException(
                f"[{section}] {key} ({variable(section, key)}) is {name!r}, which cannot be imported: {describe(cause)}") from cause


@contextlib.contextmanager
def hide_settings() -> Iterator[bool]:
    """Hides the settings, so that no class is imported: the class may belong to a project. Yields True if a setting
    names a class."""
    settings = named()
    before = dict(os.environ)
    os.environ.update({variable(*setting): "" for setting in settings})
    try:
        yield bool(settings)
    finally:
        for setting in settings:
            os.environ.pop(variable(*setting))
            if variable(*setting) in before:
                os.environ[variable(*setting)] = before[variable(*setting)]
