"""The Python operator."""

from leoflow._errors import refuse
from leoflow._context import get_current_context
from leoflow._operators import PythonOperator

__all__ = ["PythonOperator", "get_current_context"]

__getattr__ = refuse(__name__)
