"""The Bash operator."""

from leoflow._errors import refuse
from leoflow._operators import BashOperator

__all__ = ["BashOperator"]

__getattr__ = refuse(__name__)
