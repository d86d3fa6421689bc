"""Sensors for a task, a group and a run of another DAG with the same date."""

from datetime import datetime, timedelta, timezone

from airflow.providers.standard.sensors.external_task import ExternalTaskSensor
from airflow.sdk import DAG

with DAG("external", schedule=None, start_date=datetime(2024, 1, 1, tzinfo=timezone.utc)):
    common = {"external_dag_id": "external_other", "poke_interval": 0.5, "timeout": 30}
    ExternalTaskSensor(task_id="of_task", external_task_id="good", **common)
    ExternalTaskSensor(task_id="of_tasks", external_task_ids=["good", "group.inside"], **common)
    ExternalTaskSensor(task_id="of_group", external_task_group_id="group", **common)
    ExternalTaskSensor(task_id="of_run", allowed_states=["failed"], failed_states=["success"], **common)
    ExternalTaskSensor(task_id="of_failed", external_task_id="bad", failed_states=["failed"], **common)
    ExternalTaskSensor(task_id="of_skipped", external_task_id="bad", skipped_states=["failed"], **common)
    ExternalTaskSensor(
        task_id="day_before",
        external_dag_id="external_other",
        execution_delta=timedelta(days=1),
        poke_interval=0.3,
        timeout=0.5,
    )
    ExternalTaskSensor(
        task_id="by_function",
        external_dag_id="external_other",
        external_task_id="good",
        execution_date_fn=lambda date: [date],
        mode="reschedule",
        poke_interval=1,
    )
