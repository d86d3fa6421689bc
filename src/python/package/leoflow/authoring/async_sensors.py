"""Sensors that Airflow hands to its triggerer. There is none here: they wait as sensors do in the mode
`reschedule`, without a process."""

from leoflow.authoring.sensors import DateTimeSensor, TimeDeltaSensor, TimeSensor


def rescheduled(sensor):
    def init(self, **given):
        sensor.__init__(self, **{"mode": "reschedule", **given})

    return type(f"{sensor.__name__}Async", (sensor,), {"__init__": init, "__module__": __name__})


DateTimeSensorAsync = rescheduled(DateTimeSensor)
TimeDeltaSensorAsync = rescheduled(TimeDeltaSensor)
TimeSensorAsync = rescheduled(TimeSensor)
