"""<https://airflow.apache.org/docs/task-sdk/stable/api.html>"""

from leoflow import DAG, Connection, Variable, chain, dag, get_current_context, task
from leoflow._errors import refuse

__all__ = ["DAG", "Connection", "Variable", "chain", "dag", "get_current_context", "task"]

__getattr__ = refuse(__name__, __path__)
