"""What a run of `DAG.test()` needs with Airflow's SDK, see `dag_test`."""

from __future__ import annotations

import json
from types import SimpleNamespace

from leoflow.common import task_log
from leoflow.sdk import dag_file, logs, named_classes, structure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

def prepare(dag: Any, project: dict[str, Any]) -> dict[str, Any]:
    """Checks a DAG, and prepares its run; returns its structure. `project` has its `settings`."""
    from leoflow.sdk import settings

    named_classes.check()
    if project["settings"]:
        settings.apply(project["settings"], [dag])
    with open(dag.fileloc, encoding="utf-8", errors="replace") as file:
        dag_file.check(dag, file.read())
    logs.configure(task_log.to_terminal)
    return structure.dag_structure(dag)


def value(text: str) -> Any:
    """Returns the value of an XCom's text, with the project's XCom backend."""
    from airflow.sdk.execution_time.xcom import XCom

    return XCom.deserialize_value(SimpleNamespace(value=json.loads(text)))
