"""Settings of Airflow that say what a DAG or a task is that does not say it itself: variables `AIRFLOW__SECTION__KEY`, as a project's
`.env` has them. <https://airflow.apache.org/docs/apache-airflow/stable/configurations-ref.html>"""

from __future__ import annotations

import os
from datetime import timedelta

from leoflow.common.exceptions import AirflowException

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

TRUE, FALSE = ("t", "true", "1"), ("f", "false", "0")


class Setting:
    """The default of an argument: what the setting says when it is asked for."""

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
            raise AirflowException(f"{self.variable}: {text!r} is no {self.kind.__name__}") from None


def boolean(text):
    word = text.lower()
    if word not in TRUE + FALSE:
        raise ValueError(text)
    return word in TRUE


READERS = {int: int, bool: boolean, str: str, timedelta: lambda text: timedelta(seconds=float(text))}


def given(value: Any) -> Any:
    """What was given, or what the setting says where nothing was."""
    return value.value() if isinstance(value, Setting) else value
