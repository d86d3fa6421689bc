"""Sensors that succeed at once, later, or never."""

import os
from datetime import datetime, time, timedelta, timezone

from airflow.exceptions import AirflowSkipException
from airflow.providers.standard.sensors.bash import BashSensor
from airflow.providers.standard.sensors.date_time import DateTimeSensor
from airflow.providers.standard.sensors.filesystem import FileSensor
from airflow.providers.standard.sensors.python import PythonSensor
from airflow.providers.standard.sensors.time import TimeSensor
from airflow.providers.standard.sensors.time_delta import TimeDeltaSensor
from airflow.providers.standard.sensors.weekday import DayOfWeekSensor
from airflow.providers.standard.utils.weekday import WeekDay
from airflow.sdk import DAG, BaseSensorOperator, PokeReturnValue, task

# In Airflow, this connection does not exist until it is created.
os.environ["AIRFLOW_CONN_FS_DEFAULT"] = '{"conn_type": "fs", "extra": {"path": "/"}}'


def skips():
    raise AirflowSkipException("not today")


def breaks():
    raise ValueError("broken")


class Third(BaseSensorOperator):
    """Succeeds at the third poke."""

    looks = 0

    def poke(self, context):
        self.looks += 1
        return PokeReturnValue(is_done=self.looks == 3, xcom_value={"looks": self.looks})


with DAG("sensors", schedule=None, start_date=datetime(2024, 1, 1, tzinfo=timezone.utc)):
    PythonSensor(task_id="at_once", python_callable=lambda: True)
    Third(task_id="third", poke_interval=0.2)
    PythonSensor(task_id="too_late", python_callable=lambda: False, poke_interval=0.2, timeout=0.5, retries=2)
    PythonSensor(task_id="soft", python_callable=lambda: False, poke_interval=0.2, timeout=0.5, soft_fail=True)
    PythonSensor(task_id="skips", python_callable=skips)
    PythonSensor(task_id="breaks", python_callable=breaks)
    PythonSensor(task_id="never_fails", python_callable=breaks, never_fail=True)
    PythonSensor(task_id="silent", python_callable=breaks, silent_fail=True, poke_interval=0.2, timeout=0.5)
    FileSensor(task_id="there", filepath="/etc/passwd", poke_interval=0.2)
    FileSensor(task_id="glob", filepath="/etc/pass*", poke_interval=0.2)
    FileSensor(task_id="not_there", filepath="/etc/no such file", poke_interval=0.2, timeout=0.3)
    BashSensor(task_id="shell", bash_command="test 1 = 1")
    BashSensor(task_id="shell_fails", bash_command="exit 3", retry_exit_code=4)
    DateTimeSensor(task_id="past", target_time="2024-01-01T00:00:00+00:00")
    TimeDeltaSensor(task_id="delta", delta=timedelta(seconds=1), poke_interval=0.5)
    TimeSensor(task_id="midnight", target_time=time(0, 0))
    DayOfWeekSensor(task_id="any_day", week_day={"Monday", "TUESDAY", WeekDay.WEDNESDAY, "thursday", "Friday", "saturday", "Sunday"}, poke_interval=1)

    @task.sensor(poke_interval=0.2, timeout=5)
    def decorated():
        return PokeReturnValue(is_done=True, xcom_value="found")

    @task
    def shows(value):
        return value

    shows(decorated())
