"""The base class of plugins, which DAG files define because Airflow requires plugins to register timetables."""

from leoflow.common.exceptions import Unsupported


class AirflowPlugin:
    name = None

    def __init_subclass__(cls, **others):
        super().__init_subclass__(**others)
        # Members that have no effect here: timetables need no registration.
        accepted = {"name", "timetables", "on_load"}
        for name in vars(cls):
            if not name.startswith("_") and name not in accepted and vars(cls)[name]:
                raise Unsupported(f"{name} of a plugin")
