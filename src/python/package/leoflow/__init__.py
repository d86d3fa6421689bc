"""Airflow's authoring interface, as far as Leoflow has it. The same names as `airflow.sdk`."""

from leoflow.names import MODULES, look_up

__all__ = sorted(MODULES["airflow.sdk"])

__getattr__ = look_up(__name__, like="airflow.sdk")
