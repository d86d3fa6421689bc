"""Airflow's settings for defaults of DAGs and tasks, read from variables `AIRFLOW__SECTION__KEY`, for example in a
project's `.env`. <https://airflow.apache.org/docs/apache-airflow/stable/configurations-ref.html>"""

from __future__ import annotations

import os
from datetime import timedelta
from functools import cache

from leoflow.common.exceptions import AirflowException

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# Airflow's own e-mail backend, which uses the smtp provider.
DEFAULT_BACKEND = "airflow.utils.email.send_email_smtp"
TRUE, FALSE = ("t", "true", "1"), ("f", "false", "0")


def without_effect(has_sdk: bool) -> list[str]:
    """Returns a warning for each setting of Airflow in the environment that would change what DAGs do and has no effect;
    those with Airflow's default values are left out. `airflow_keys.txt` has the table."""
    warnings = []
    for meaning, section, key, defaults in rows():
        variable = variable_of(section, key)
        # A list may be on several lines.
        value = "".join(os.environ.get(variable, "").split()).lower()
        if value and value not in defaults.lower().split("|") and (meaning == "ignored" or meaning == "sdk" and not has_sdk):
            how = "Leoflow has no such setting" if meaning == "ignored" else "only Airflow's own SDK has it, which this project lacks"
            warnings.append(f"{variable} has no effect: {how}")
    return warnings


@cache
def rows() -> list[tuple[str, str, str, str]]:
    """Returns meaning, section, key and default values of each key in `airflow_keys.txt`."""
    with open(os.path.join(os.path.dirname(__file__), "airflow_keys.txt"), encoding="utf-8") as file:
        lines = [line.split() for line in file if not line.startswith("#")]
    return [(meaning, section, *word.partition("=")[::2]) for meaning, section, *words in lines for word in words]


def variable_of(section: str, key: str) -> str:
    return f"AIRFLOW__{section}__{key}".upper().replace(".", "_")


def unread_variable(variable: str) -> str | None:
    """Returns why a setting is not read: a command or a secrets backend has its value. None if it is not set so."""
    name = next((name for name in (f"{variable}_CMD", f"{variable}_SECRET") if os.environ.get(name)), None)
    return name and f"{name} is read by Airflow's own SDK only; set {variable} to the value itself"


class Setting:
    """The default value of an argument; `value()` reads the setting on each call."""

    def __init__(self, section: str, key: str, default: Any, kind: type):
        self.variable = variable_of(section, key)
        self.default = default
        self.kind = kind

    def __repr__(self):
        return repr(self.default)

    def value(self) -> Any:
        text = os.environ.get(self.variable, "").strip()
        if not text:
            if (problem := unread_variable(self.variable)) is not None:
                raise AirflowException(problem)
            return self.default
        try:
            return READERS[self.kind](text)
        except ValueError:
            raise AirflowException(f"{self.variable}: {text!r} is not a valid {self.kind.__name__}") from None


def boolean(text: str) -> bool:
    word = text.lower()
    if word not in TRUE + FALSE:
        raise ValueError(text)
    return word in TRUE


READERS = {int: int, bool: boolean, str: str, timedelta: lambda text: timedelta(seconds=float(text))}


def setting_or_value(value: Any) -> Any:
    """Returns the value of an argument: the setting's value if the argument still has its default, a Setting."""
    return value.value() if isinstance(value, Setting) else value
