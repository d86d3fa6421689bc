"""Airflow's authoring interface, as far as Leoflow has it. The same names as `airflow.sdk`."""

from ._context import get_current_context
from ._dag import DAG, dag
from ._errors import refuse
from ._graph import chain
from ._stores import Connection, Variable
from ._taskflow import task

__all__ = ["DAG", "Connection", "Variable", "chain", "dag", "get_current_context", "task"]

__getattr__ = refuse(__name__, __path__)
