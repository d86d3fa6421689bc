"""Links of operators to other pages, which the web UI shows as buttons. A task computes them at its end, as in Airflow."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class BaseOperatorLink(ABC):
    """Base class of links."""

    # Operators to which a plugin adds the link.
    operators: list[type] = []

    @property
    @abstractmethod
    def name(self) -> str:
        """The text of the button."""

    @property
    def xcom_key(self) -> str:
        """The key of the XCom that holds the link."""
        return f"_link_{type(self).__name__}"

    @abstractmethod
    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        """Returns the URL. `ti_key` is the task instance."""


def run_url(dag_id: str, run_id: str) -> str:
    """Returns the address of a DAG run's page."""
    base = os.environ.get("AIRFLOW__API__BASE_URL", "http://localhost:8088").rstrip("/")
    return f"{base}/dags/{dag_id}/runs/{run_id}"


class TriggerDagRunLink(BaseOperatorLink):
    name = "Triggered DAG"

    def get_link(self, operator, *, ti_key):
        run_id = ti_key.xcom_pull(key="trigger_run_id", map_indexes=ti_key.map_index)
        return run_url(operator.trigger_dag_id, run_id) if run_id else ""


class ExternalDagLink(BaseOperatorLink):
    name = "External DAG"

    def get_link(self, operator, *, ti_key):
        return run_url(operator.external_dag_id, ti_key.run_id)
