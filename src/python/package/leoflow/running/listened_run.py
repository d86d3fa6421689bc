"""The DAG run that listeners of plugins receive."""

from __future__ import annotations

from leoflow.authoring.run_types import DagRunType
from leoflow.authoring.states import DagRunState, Text
from leoflow.common.dates import parse_time
from leoflow.running.task_instance import DagRun

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from leoflow.authoring.dag.dag import DAG


# The type that the scheduler gives listeners is printed as its value, unlike that of tasks.
ListenedRunType = Text("DagRunType", {kind.name: kind.value for kind in DagRunType})


class ListenedRun(DagRun):
    """A DAG run in the state that it has reached."""

    def __init__(self, dag: DAG, spec: dict[str, Any]):
        super().__init__(spec)
        self.dag = dag
        self.state = DagRunState(spec["state"])
        self.run_type = ListenedRunType(spec["run_type"])
        self.queued_at = parse_time(spec.get("queued_at"))
        self.end_date = parse_time(spec.get("end_date"))
        self.version_number = spec.get("version_number")
        self.clear_number = spec.get("clear_number", 0)

    def get_state(self):
        return self.state
