"""The parsing context: <https://airflow.apache.org/docs/apache-airflow/stable/howto/dynamic-dag-generation.html>"""

from __future__ import annotations

from collections import namedtuple

AirflowParsingContext = namedtuple("AirflowParsingContext", "dag_id task_id")
_context = AirflowParsingContext(None, None)


def get_parsing_context():
    """Returns the dag_id and task_id that are about to run; both are None while the file is parsed for all its DAGs."""
    return _context


def set_parsing_context(dag_id: str, task_id: str | None) -> None:
    """Sets the parsing context, before the file is loaded to run this task."""
    global _context
    _context = AirflowParsingContext(dag_id, task_id)
