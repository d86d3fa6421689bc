"""The process that runs triggers of Airflow's SDK and its providers."""

from __future__ import annotations

import asyncio
import os

from leoflow.common import leoflow_server
from leoflow.running import trigger_host
from leoflow.sdk import logs, named_classes, older_versions, startup
from leoflow.sdk.supervisor import TaskSupervisor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class TriggerSupervisor(TaskSupervisor):
    """Answers messages of triggers. They belong to no try, so the server grants them the user's permissions."""

    def __init__(self):
        super().__init__({"dag_id": "", "run_id": "", "task_id": "", "map_index": -1})
        # Removes the messages that need a try.
        for kind in [kind for kind in self.answers if "StateStore" in kind]:
            del self.answers[kind]
        del self.answers["CreateHITLDetailPayload"]
        for kind in ("SetXCom", "DeleteXCom", "PutVariable", "DeleteVariable", "TriggerDagRun", "GetPrevSuccessfulDagRun"):
            del self.answers[kind]

    def instance(self, ti_id):
        return INSTANCES[str(ti_id)]

    def ask(self, path: str, body: Any = None, method: str | None = None) -> Any:
        return leoflow_server.client().request(method or ("GET" if body is None else "POST"), f"/local/triggers/{path}", body)


# The task instances of running triggers, by Airflow's id.
INSTANCES = {}


def make_instance(spec):
    from airflow.sdk.execution_time import comms

    fields = {**spec, "id": startup.instance_id(spec), "dag_version_id": startup.version_id(spec["dag_id"]),
              "hostname": os.uname().nodename}
    known = comms.TaskInstance.model_fields
    instance = comms.TaskInstance(**{name: value for name, value in fields.items() if name in known})
    INSTANCES[str(instance.id)] = {name: spec[name] for name in ("dag_id", "run_id", "task_id", "map_index")}
    return instance


class SdkTriggerBackend(trigger_host.TriggerBackend):
    def on_trigger_end(self, instance):
        if instance is not None:
            INSTANCES.pop(str(instance.id), None)


TRIGGER_BACKEND = SdkTriggerBackend(older_versions.encode, older_versions.decode, make_instance, logs.to_errors)


def main(options: dict[str, Any]) -> None:
    """Runs triggers. The working directory, the project's variables and the import hooks must be set up."""
    # Comes first, because imports of Airflow may need one of the classes.
    named_classes.check()
    from airflow.sdk.execution_time import task_runner
    from leoflow.sdk import task_try
    from leoflow.sdk.dag_file import enter_project

    os.set_inheritable(trigger_host.AGENT, False)
    leoflow_server.configure(options["socket"])
    enter_project()
    task_runner.SUPERVISOR_COMMS = TriggerSupervisor()
    task_try.block_database()
    asyncio.run(trigger_host.serve(TRIGGER_BACKEND, logs.configure))
