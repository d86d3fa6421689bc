"""Airflow's settings for defaults of DAGs and tasks, read from variables `AIRFLOW__SECTION__KEY`, for example in a
project's `.env`. <https://airflow.apache.org/docs/apache-airflow/stable/configurations-ref.html>"""

from __future__ import annotations

import os
from datetime import timedelta

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
    with open(os.path.join(os.path.dirname(__file__), "airflow_keys.txt"), encoding="utf-8") as file:
        rows = [line.split() for line in file if not line.startswith("#")]
    for meaning, section, *keys in rows:
        for key, _, defaults in (word.partition("=") for word in keys):
            variable = f"AIRFLOW__{section}__{key}".upper()
            value = os.environ.get(variable, "").strip().lower()
            if value and value not in defaults.lower().split("|") and (meaning == "ignored" or meaning == "sdk" and not has_sdk):
                how = "Leoflow has no such setting" if meaning == "ignored" else "only Airflow's own SDK has it, which this project lacks"
                warnings.append(f"{variable} has no effect: {how}")
    return warnings


class Setting:
    """The default value of an argument; `value()` reads the setting on each call."""

    def __init__(self, section: str, key: str, default: Any, kind: type):
        self.variable = f"AIRFLOW__{section}__{key}".upper()
        self.default = default
        self.kind = kind

    def __repr__(self):
        return repr(self.default)

    def value(self) -> Any:
        text = os.environ.get(self.variable, "").strip()
        if not text:
            return self.default
        try:
            return READERS[self.kind](text)
        except ValueError:
            raise AirflowException(f"{self.variable}: {text!r} is not a valid {self.kind.__name__}") from None


def boolean(text):
    word = text.lower()
    if word not in TRUE + FALSE:
        raise ValueError(text)
    return word in TRUE


READERS = {int: int, bool: boolean, str: str, timedelta: lambda text: timedelta(seconds=float(text))}


def setting_or_value(value: Any) -> Any:
    """Returns the value of an argument: the setting's value if the argument still has its default, a Setting."""
    return value.value() if isinstance(value, Setting) else value
