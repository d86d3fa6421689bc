"""Airflow's `conf` and `airflow.settings`. `conf` answers from variables `AIRFLOW__SECTION__KEY`, then from Airflow's
defaults of the keys in `airflow_keys.txt`.
<https://airflow.apache.org/docs/apache-airflow/stable/howto/set-config.html>"""

from __future__ import annotations

import os

from leoflow.common import dates
from leoflow.common.exceptions import AirflowConfigException, unsupported_name
from leoflow.common.settings.airflow_settings import boolean, rows, unread_variable, variable_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_UNSET = object()


class AirflowConfigParser:
    """The methods of Airflow's configuration that read a value. Like Airflow's, they use `fallback` only for a key that
    has no default."""

    def get(self, section: str, key: str, fallback: Any = _UNSET, **_: Any) -> Any:
        section, key = RENAMED.get((section.lower(), key.lower()), (section, key))
        variable = variable_of(section, key)
        value = os.environ.get(variable)
        if value is not None:
            return value
        if (other := unread_variable(variable)) is not None:
            raise AirflowConfigException(other)
        value = default(section.lower(), key.lower())
        if value is None:
            value = fallback
        if value is _UNSET:
            raise AirflowConfigException(f"section/key [{section}/{key}] not found in config; set {variable} in the project's .env")
        return value

    def has_option(self, section: str, option: str, **_: Any) -> bool:
        try:
            self.get(section, option)
        except AirflowConfigException:
            return False
        return True

    def getint(self, section: str, key: str, **options: Any) -> int:
        return self._converted(section, key, whole, "int", options)

    def getfloat(self, section: str, key: str, **options: Any) -> float:
        return self._converted(section, key, float, "float", options)

    def getboolean(self, section: str, key: str, **options: Any) -> bool:
        return self._converted(section, key, lambda value: boolean(str(value).partition("#")[0].strip()), "bool", options)

    def getlist(self, section: str, key: str, delimiter: str = ",", **options: Any) -> Any:
        value = self.get(section, key, **options)
        if value is None or isinstance(value, list):
            return value
        return [item.strip() for item in value.split(delimiter)] if value else []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise unsupported_name(f"airflow.configuration.conf.{name}")

    def _converted(self, section: str, key: str, convert: Callable[[Any], Any], kind: str, options: dict[str, Any]) -> Any:
        value = self.get(section, key, **options)
        try:
            return convert(value)
        except (TypeError, ValueError):
            raise AirflowConfigException(
                f'Failed to convert value to {kind}. Please check "{key}" key in "{section}" section. Current value: "{value}".') from None


def whole(value):
    number = float(value)
    if not number.is_integer():
        raise ValueError(value)
    return int(number)


def default(section: str, key: str) -> str | None:
    """Returns Airflow's default; folders are those of the project."""
    if (section, key) in FOLDERS:
        return FOLDERS[section, key]()
    return next((defaults.partition("|")[0] for _, row, other, defaults in rows() if (row, other) == (section, key) and defaults), None)


def airflow_home() -> str:
    return os.path.expanduser(os.environ.get("AIRFLOW_HOME") or "~/airflow")


def dags_folder() -> str:
    """Returns the project's folder with DAG files."""
    folder = os.path.join(airflow_home(), "dags")
    return folder if os.path.isdir(folder) else airflow_home()


def plugins_folder() -> str:
    return os.path.join(airflow_home(), "plugins")


FOLDERS = {("core", "dags_folder"): dags_folder, ("core", "plugins_folder"): plugins_folder}
# The option of Airflow 2 that DAG files read most, for links in messages.
RENAMED = {("webserver", "base_url"): ("api", "base_url")}
NAMES = {
    "AIRFLOW_HOME": airflow_home, "DAGS_FOLDER": lambda: conf.get("core", "dags_folder"),
    "PLUGINS_FOLDER": lambda: conf.get("core", "plugins_folder"), "TIMEZONE": dates.default_zone,
}
conf = AirflowConfigParser()


def __getattr__(name: str) -> Any:
    if name not in NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return NAMES[name]()
