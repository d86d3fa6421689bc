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
