"""Sensors that wait in Airflow's triggerer. Here they use mode `reschedule`, in which they also wait without a process
of their own."""

from leoflow.authoring.sensors.temporal import DateTimeSensor, TimeDeltaSensor, TimeSensor


def rescheduled(sensor):
    """Returns a subclass of the sensor whose default mode is `reschedule`."""
    def init(self, **arguments):
        sensor.__init__(self, **{"mode": "reschedule", **arguments})

    return type(f"{sensor.__name__}Async", (sensor,), {"__init__": init, "__module__": __name__})


DateTimeSensorAsync = rescheduled(DateTimeSensor)
TimeDeltaSensorAsync = rescheduled(TimeDeltaSensor)
TimeSensorAsync = rescheduled(TimeSensor)
