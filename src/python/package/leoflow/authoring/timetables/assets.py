"""Timetables that combine assets with another timetable."""

from leoflow.authoring.assets.definitions import condition_of
from leoflow.authoring.timetables.standard import AssetTriggeredTimetable, BuiltIn
from leoflow.common.exceptions import AirflowTimetableInvalid


class AssetOrTimeSchedule(BuiltIn):
    """Runs are triggered by assets or by another timetable."""

    kind = "asset_or_time"
    word = "or"

    def __init__(self, *, timetable, assets):
        if isinstance(timetable, (AssetTriggeredTimetable, AssetOrTimeSchedule)):
            raise AirflowTimetableInvalid("cannot nest asset timetables")
        self.timetable = timetable
        self.asset_condition = condition_of(assets)
        self.periodic = timetable.periodic
        self.can_be_scheduled = timetable.can_be_scheduled
        self.active_runs_limit = timetable.active_runs_limit
        self.description = f"Triggered by assets {self.word} {timetable.description}"

    @property
    def summary(self):
        return f"Asset {self.word} {self.timetable.summary}"

    def validate(self):
        self.timetable.validate()

    def to_structure(self):
        return {"kind": self.kind, "timetable": self.timetable.to_structure()}


class AssetAndTimeSchedule(AssetOrTimeSchedule):
    """Runs are due at the times of another timetable, and wait for assets."""

    kind = "asset_and_time"
    word = "and"
