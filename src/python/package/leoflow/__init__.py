"""The names of `airflow.sdk`: from the small package (this one) or, if the project's environment contains Airflow's
SDK, from that SDK."""

from leoflow.common import real_sdk
from leoflow.names import MODULES, make_getattr

_getattr = make_getattr(__name__, like="airflow.sdk")


def __getattr__(name):
    if real_sdk.is_active():
        import airflow.sdk

        return getattr(airflow.sdk, name)
    return sorted(MODULES["airflow.sdk"]) if name == "__all__" else _getattr(name)
