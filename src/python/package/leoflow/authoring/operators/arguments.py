"""Checks and normalizes the arguments that every operator takes."""

from __future__ import annotations

from collections.abc import Collection
from datetime import timedelta

from leoflow.common.exceptions import AirflowException
from leoflow.common.reports import user_line
from leoflow.common.settings.airflow_settings import Setting

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from leoflow.common.graph import Dag

# Defaults of Airflow's configuration.
OWNER = Setting("operators", "default_owner", "airflow", str)
RETRIES = Setting("core", "default_task_retries", 0, int)
RETRY_DELAY = Setting("core", "default_task_retry_delay", timedelta(seconds=300), timedelta)
WEIGHT_RULE = Setting("core", "default_task_weight_rule", "downstream", str)
EMAIL_ON_FAILURE = Setting("email", "default_email_on_failure", True, bool)
EMAIL_ON_RETRY = Setting("email", "default_email_on_retry", True, bool)
EXECUTION_TIMEOUT = Setting("core", "default_task_execution_timeout", None, timedelta)


def as_timedelta(name: str, value: Any) -> timedelta:
    """Converts a delay, which is a timedelta or a number of seconds, to a timedelta."""
    if isinstance(value, timedelta):
        return value
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return timedelta(seconds=value)
    raise TypeError(f"{name} should be timedelta object but passed type: {type(value)}")


def text_or_none(name: str, value: Any) -> str | None:
    if value is not None and not isinstance(value, str):
        raise TypeError(f"{name} must be a string and is a {type(value).__name__}")
    return value


def check_doc(doc_md: Any) -> str | None:
    """Checks doc_md. If it is the path of an existing Markdown file, returns the file's text."""
    text_or_none("doc_md", doc_md)
    if doc_md and doc_md.endswith(".md") and "\n" not in doc_md:
        import os

        # As in Airflow, the path is relative to the DAG file.
        path = os.path.join(os.path.dirname(user_line()[0]), doc_md)
        try:
            with open(path, encoding="utf-8") as file:
                return file.read()
        except FileNotFoundError:
            return doc_md
    return doc_md


def callbacks(name: str, value: Any) -> list[Callable]:
    """Returns a list of callbacks, for one callback, several, or None."""
    if value is None:
        return []
    if callable(value):
        return [value]
    if isinstance(value, Collection) and not isinstance(value, (str, bytes)):
        return list(value)
    raise TypeError(f"{name} must be a function or a list of them, not {type(value).__name__}")


def warn_of_sla() -> None:
    """Warns that `sla` has no effect, as Airflow does."""
    import warnings

    warnings.warn("The SLA feature is removed in Airflow 3.0; use execution_timeout or dagrun_timeout", stacklevel=4)


def check_retries(task_id: str, retries: Any) -> int:
    if retries is None:
        return 0
    try:
        number = int(retries)
    except (TypeError, ValueError):
        raise TypeError(f"'retries' type must be int, not {type(retries).__name__}") from None
    if not 0 <= number < 2**30:
        raise AirflowException(f"retries of {task_id!r} cannot be {number}")
    return number


def backoff(value: Any) -> float:
    """Returns the factor of exponential backoff: True means 2; 0 means none."""
    if isinstance(value, bool):
        return 2.0 if value else 0.0
    if not isinstance(value, (int, float)) or value < 0:
        raise TypeError(f"retry_exponential_backoff must be a number from 0, not {value!r}")
    return float(value)


def priority(task_id: str, weight: Any) -> int:
    """Checks a priority weight and limits it to 32 bits, as in Airflow."""
    if isinstance(weight, bool) or not isinstance(weight, int):
        raise AirflowException(f"`priority_weight` for task '{task_id}' only accepts integers, received '{type(weight)}'.")
    return max(-(2**31), min(weight, 2**31 - 1))


def limit(name: str, value: Any) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise TypeError(f"{name} must be a whole number, not {value!r}")
    return value


def one_or_many(value: Any) -> list:
    """Returns a list, for one value, several, or None."""
    if value is None:
        return []
    return list(value) if isinstance(value, (list, tuple, set)) else [value]


def text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a string and is a {type(value).__name__}")
    return value


def slots(task_id: str, dag: Dag | None, number: Any) -> int:
    if not isinstance(number, int) or number < 1:
        location = f" in dag {dag.dag_id}" if dag is not None else ""
        raise ValueError(f"pool slots for {task_id}{location} cannot be less than 1")
    return number


def timeout(value: Any) -> timedelta | None:
    if value is not None and not isinstance(value, timedelta):
        raise ValueError(f"execution_timeout must be timedelta object but passed as type: {type(value)}")
    return value
