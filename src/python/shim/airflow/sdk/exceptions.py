"""The exceptions under their Airflow names."""

from leoflow._errors import (
    AirflowDagCycleException,
    AirflowException,
    AirflowFailException,
    AirflowNotFoundException,
    AirflowRuntimeError,
    AirflowSkipException,
    AirflowTaskTerminated,
    AirflowTaskTimeout,
    DuplicateTaskIdFound,
    XComNotFound,
    refuse,
)

__all__ = [
    "AirflowDagCycleException",
    "AirflowException",
    "AirflowFailException",
    "AirflowNotFoundException",
    "AirflowRuntimeError",
    "AirflowSkipException",
    "AirflowTaskTerminated",
    "AirflowTaskTimeout",
    "DuplicateTaskIdFound",
    "XComNotFound",
]

__getattr__ = refuse(__name__)
