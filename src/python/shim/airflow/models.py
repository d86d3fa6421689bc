"""The older path of what DAG files use."""

from leoflow._errors import refuse
from leoflow import DAG, Connection, Variable

__all__ = ["DAG", "Connection", "Variable"]

__getattr__ = refuse(__name__)
