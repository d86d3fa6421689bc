"""The older path of the decorators."""

from leoflow._errors import refuse
from leoflow import dag, task

__all__ = ["dag", "task"]

__getattr__ = refuse(__name__)
