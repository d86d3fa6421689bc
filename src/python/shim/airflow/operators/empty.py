"""The Empty operator."""

from leoflow._errors import refuse
from leoflow._operators import EmptyOperator

__all__ = ["EmptyOperator"]

__getattr__ = refuse(__name__)
