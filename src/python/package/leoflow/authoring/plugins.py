"""Plugins, as far as DAG files have them: Airflow wants timetables registered in one."""

from leoflow.common.exceptions import Unsupported


class AirflowPlugin:
    name = None

    def __init_subclass__(cls, **others):
        super().__init_subclass__(**others)
        known = {"name", "timetables", "on_load"}
        for name in vars(cls):
            if not name.startswith("_") and name not in known and vars(cls)[name]:
                raise Unsupported(f"{name} of a plugin")
