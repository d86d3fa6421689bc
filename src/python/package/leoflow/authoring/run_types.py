"""Run types and constants of `airflow.utils.types` and `airflow.utils.xcom`."""

import enum

from leoflow.authoring.mapping.xcom_arg import RETURN as XCOM_RETURN_KEY

NOTSET = object()
__all__ = ["DagRunType", "NOTSET", "XCOM_RETURN_KEY"]


class DagRunType(str, enum.Enum):
    BACKFILL_JOB = "backfill"
    SCHEDULED = "scheduled"
    MANUAL = "manual"
    OPERATOR_TRIGGERED = "operator_triggered"
    ASSET_TRIGGERED = "asset_triggered"
    ASSET_MATERIALIZATION = "asset_materialization"
