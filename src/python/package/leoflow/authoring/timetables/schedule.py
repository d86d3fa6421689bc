"""The timetable of a DAG's `schedule` argument."""

from __future__ import annotations

from datetime import timedelta

from leoflow.authoring.assets.definitions import BaseAsset, condition_of
from leoflow.authoring.timetables.standard import (
    AssetTriggeredTimetable,
    ContinuousTimetable,
    CronDataIntervalTimetable,
    CronTriggerTimetable,
    DeltaDataIntervalTimetable,
    DeltaTriggerTimetable,
    NullTimetable,
    OnceTimetable,
    Timetable,
    is_relativedelta,
)
from leoflow.common.settings.airflow_settings import Setting

TYPE_CHECKING = False
if TYPE_CHECKING:
    from datetime import tzinfo
    from typing import Any

# In spite of its name, this setting applies to timedelta schedules, too, as in Airflow.
INTERVALS = Setting("scheduler", "create_cron_data_intervals", False, bool)


def timetable_of_schedule(schedule: Any, timezone: tzinfo | None) -> Timetable:
    """Returns the timetable of a DAG's `schedule` argument. Airflow's settings select between the timetables with and
    without data intervals."""
    if isinstance(schedule, Timetable):
        return schedule
    if isinstance(schedule, BaseAsset):
        return AssetTriggeredTimetable(condition_of(schedule))
    if isinstance(schedule, (list, tuple, set, frozenset)):
        if not all(isinstance(asset, BaseAsset) for asset in schedule):
            raise ValueError("All elements in 'schedule' should be either assets, asset references, or asset aliases")
        return AssetTriggeredTimetable(condition_of(schedule))
    if schedule is None:
        return NullTimetable()
    if schedule == "@once":
        return OnceTimetable()
    if schedule == "@continuous":
        return ContinuousTimetable()
    if isinstance(schedule, timedelta) or is_relativedelta(schedule):
        return (DeltaDataIntervalTimetable if INTERVALS.value() else DeltaTriggerTimetable)(schedule)
    if isinstance(schedule, str):
        return (CronDataIntervalTimetable if INTERVALS.value() else CronTriggerTimetable)(schedule, timezone=timezone)
    raise ValueError(f"{schedule!r} is not a valid schedule.")
