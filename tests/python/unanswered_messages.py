"""Prints the messages of Airflow's SDK to its supervisor that Leoflow does not answer, and timetables that
its structure does not know, one a line. Runs with the Python of an environment that has Airflow."""

import typing

import airflow.sdk
from airflow.sdk.bases.timetable import BaseTimetable
from airflow.sdk.execution_time import comms
from leoflow.sdk.definitions import timetables
from leoflow.sdk.supervisor import TaskSupervisor

# Listed in `__all__`, but not importable as names.
SUBMODULES = ("lineage",)
spec = {"dag_id": "d", "run_id": "r", "task_id": "t", "map_index": -1, "try_number": 1}
answered = TaskSupervisor(spec).answers
union = typing.get_args(comms.ToSupervisor)[0]
for message in sorted(kind.__name__ for kind in typing.get_args(union)):
    if message not in answered:
        print("message", message)
for name in sorted(airflow.sdk.__all__):
    member = getattr(airflow.sdk, name) if name not in SUBMODULES else None
    if isinstance(member, type) and issubclass(member, BaseTimetable) and member is not BaseTimetable:
        if name not in timetables.MAKERS:
            print("timetable", name)
