"""Classes that settings of Airflow name: in the project's `.env`, in the environment, or in `airflow.cfg`. They may be the
project's own, so they are imported only once its folders are on the path; one that cannot be imported is an import error."""

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
# Those that Airflow imports in the processes of tasks, triggers and DAG files; first those that `import airflow` needs.
SETTINGS = (
    ("secrets", "backend"), LOGGING_CONFIG, ("logging", "secret_mask_adapter"), XCOM_BACKEND, ("core", "hostname_callable"),
    ("email", "email_backend"), ("metrics", "stat_name_handler"), ("metrics", "statsd_custom_client_path"),
    ("sentry", "before_send"), ("sentry", "transport"), ("workers", "secrets_backend"),
)


def variable(section: str, key: str) -> str:
    return f"AIRFLOW__{section}__{key}".upper()


def configured() -> configparser.RawConfigParser:
    """`airflow.cfg`, as far as it can be read; Airflow itself reports the rest."""
    parser = configparser.RawConfigParser(strict=False)
    with contextlib.suppress(OSError, UnicodeDecodeError, configparser.Error):
        parser.read(os.environ.get("AIRFLOW_CONFIG") or [], encoding="utf-8")
    return parser


def named() -> dict[tuple[str, str], str]:
    """By setting, the dotted names of those that are not Airflow's own."""
    parser, found = configured(), {}
    for section, key in SETTINGS:
        # The environment counts more, also where it says nothing but that there is none.
        text = os.environ.get(variable(section, key))
        text = (parser.get(section, key, fallback="") if text is None else text).strip()
        if text and (not text.startswith("airflow.") or text.startswith("airflow.providers.")):
            found[section, key] = text
    return found


def load(section: str, key: str, name: str) -> object:
    """Imports it as Airflow does; raises what it raises."""
    # It puts the logging configuration in force, which may import Airflow's modules itself.
    importlib.import_module("airflow")
    if (section, key) == XCOM_BACKEND:
        # A module that imports DAGs, too, can be imported only on the way that Airflow takes.
        return importlib.import_module("airflow.sdk.execution_time.xcom").XCom
    module, _, attribute = name.rpartition(".")
    if not module:
        raise ImportError(f"{name} has no module: a dotted name is needed")
    found = getattr(importlib.import_module(module), attribute)
    if (section, key) == LOGGING_CONFIG and not isinstance(found, dict):
        raise TypeError(f"{name} is no dict")
    return found


def check() -> None:
    """Raises AirflowException for the first that cannot be imported."""
    for (section, key), name in named().items():
        try:
            load(section, key, name)
        except Exception as error:
            # Airflow says only that it could not be imported.
            cause = error.__context__ if type(error).__name__ == "AirflowConfigException" else None
            cause = cause or error
            raise AirflowException(
                f"[{section}] {key} ({variable(section, key)}) is {name!r}, which cannot be imported: {describe(cause)}") from cause


@contextlib.contextmanager
def left_out() -> Iterator[bool]:
    """In a warm Python: none of them is imported, because each may be a project's. Yields whether any is named."""
    found = named()
    before = dict(os.environ)
    os.environ.update({variable(*one): "" for one in found})
    try:
        yield bool(found)
    finally:
        for one in found:
            os.environ.pop(variable(*one))
            if variable(*one) in before:
                os.environ[variable(*one)] = before[variable(*one)]
