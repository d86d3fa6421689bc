"""The older path of the exceptions."""

from airflow.sdk.exceptions import *  # noqa: F403
from airflow.sdk.exceptions import __all__ as __all__
from leoflow._errors import refuse

__getattr__ = refuse(__name__)
