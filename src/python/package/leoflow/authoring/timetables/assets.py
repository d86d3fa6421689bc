"""AssetOrTimeSchedule: a timetable whose runs are triggered by assets or by another timetable."""

from leoflow.authoring.assets.definitions import condition_of
from leoflow.authoring.timetables.standard import AssetTriggeredTimetable, BuiltIn
from leoflow.common.exceptions import AirflowTimetableInvalid


class AssetOrTimeSchedule(BuiltIn):
    kind = "asset_or_time"

    def __init__(self, *, timetable, assets):
        if isinstance(timetable, (AssetTriggeredTimetable, AssetOrTimeSchedule)):
            raise AirflowTimetableInvalid("cannot nest asset timetables")
        self.timetable = timetable
        self.asset_condition = condition_of(assets)
        self.periodic = timetable.periodic
        self.can_be_scheduled = timetable.can_be_scheduled
        self.active_runs_limit = timetable.active_runs_limit
        self.description = f"Triggered by assets or {timetable.description}"

    @property
    def summary(self):
        return f"Asset or {self.timetable.summary}"

    def validate(self):
        self.timetable.validate()

    def to_structure(self):
        return {"kind": self.kind, "timetable": self.timetable.to_structure()}
