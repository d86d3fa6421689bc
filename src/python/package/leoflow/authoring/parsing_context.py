"""Why a file is being run: <https://airflow.apache.org/docs/apache-airflow/stable/howto/dynamic-dag-generation.html>"""

from __future__ import annotations

from collections import namedtuple

AirflowParsingContext = namedtuple("AirflowParsingContext", "dag_id task_id")
_context = AirflowParsingContext(None, None)


def get_parsing_context():
    """Which DAG and task is wanted; both None while all of the file's DAGs are looked for."""
    return _context


def is_for(dag_id: str, task_id: str | None) -> None:
    global _context
    _context = AirflowParsingContext(dag_id, task_id)
