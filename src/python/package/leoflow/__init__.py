"""The names of `airflow.sdk`: those of the small package (this one), or Airflow's own if the project's environment
contains it."""

from leoflow.common import real_sdk
from leoflow.names import MODULES, look_up

_look_up = look_up(__name__, like="airflow.sdk")


def __getattr__(name):
    if real_sdk.is_used():
        import airflow.sdk

        return getattr(airflow.sdk, name)
    return sorted(MODULES["airflow.sdk"]) if name == "__all__" else _look_up(name)
