"""ExternalTaskSensor, which waits for a task, a task group or a run of another DAG, and ExternalTaskMarker."""

from datetime import timedelta, timezone

from leoflow.authoring.operators.base_operator import BaseOperator
from leoflow.authoring.operators.links import ExternalDagLink
from leoflow.authoring.operators.standard import AvailableArguments, keyword_arguments
from leoflow.authoring.sensors.base import BaseSensorOperator
from leoflow.common.exceptions import (
    AirflowException,
    AirflowSkipException,
    DagNotFound,
    ExternalDagNotFoundError,
    ExternalTaskFailedError,
    ExternalTaskGroupNotFoundError,
    ExternalTaskNotFoundError,
)

RUN_STATES = {"queued", "running", "success", "failed"}


class ExternalTaskSensor(BaseSensorOperator):
    """<https://airflow.apache.org/docs/apache-airflow-providers-standard/stable/sensors/external_task_sensor.html>"""

    template_fields = ("external_dag_id", "external_task_id", "external_task_ids", "external_task_group_id")
    operator_extra_links = [ExternalDagLink()]
    ui_color = "#4db7db"

    def __init__(self, *, external_dag_id, external_task_id=None, external_task_ids=None, external_task_group_id=None,
                 allowed_states=None, skipped_states=None, failed_states=None, execution_delta=None,
                 execution_date_fn=None, check_existence=False, poll_interval=None, **others):
        # `poll_interval` is Airflow's older name of `poke_interval`.
        super().__init__(**others if poll_interval is None else {**others, "poke_interval": poll_interval})
        states = [[str(state) for state in given_states or []] for given_states in (allowed_states, skipped_states, failed_states)]
        self.allowed_states, self.skipped_states, self.failed_states = states[0] or ["success"], states[1], states[2]
        all_states = self.allowed_states + self.skipped_states + self.failed_states
        if len(set(all_states)) < len(all_states):
            raise AirflowException(
                "Duplicate values provided across allowed_states, skipped_states and failed_states."
            )
        if external_task_id is not None and external_task_ids is not None:
            raise ValueError(
                "Only one of `external_task_id` or `external_task_ids` may be provided to ExternalTaskSensor; "
                "use external_task_id or external_task_ids or external_task_group_id."
            )
        if external_task_group_id is not None and (external_task_ids is not None or external_task_id is not None):
            raise ValueError(
                "Only one of `external_task_group_id` or `external_task_ids` may be provided to ExternalTaskSensor; "
                "use external_task_id or external_task_ids or external_task_group_id."
            )
        if external_task_id is None and external_task_ids is None and external_task_group_id is None:
            unknown = set(all_states) - RUN_STATES
            if unknown:
                raise ValueError(
                    f"Valid values for `allowed_states`, `skipped_states` and `failed_states` when "
                    f"`external_task_id` and `external_task_group_id` is `None`: {sorted(RUN_STATES)}"
                )
        if execution_delta is not None and execution_date_fn is not None:
            raise ValueError(
                "Only one of `execution_delta` or `execution_date_fn` may be provided to ExternalTaskSensor; not both."
            )
        self.external_dag_id = external_dag_id
        self.external_task_id = external_task_id
        self.external_task_ids = [external_task_id] if external_task_id is not None else external_task_ids
        self.external_task_group_id = external_task_group_id
        self.execution_delta = execution_delta
        self.execution_date_fn = execution_date_fn
        self.check_existence = check_existence
        self._has_checked_existence = False

    def known_wait(self):
        ids, delta = self.external_task_ids, self.execution_delta
        if ids is not None and type(ids) not in (list, tuple):
            return None
        named = [self.external_dag_id, self.external_task_group_id, *(ids or ())]
        is_plain = all(name is None or isinstance(name, str) and "{" not in name for name in named)
        if not is_plain or self.execution_date_fn is not None or self.check_existence or self.exponential_backoff:
            return None
        # The scheduler cannot check an empty list or a duplicate, for which the task's process reports an error, or a
        # delta with months, which is not a timedelta.
        if ids is not None and (not ids or len(set(ids)) < len(ids)) or delta is not None and type(delta) is not timedelta:
            return None
        return {
            "kind": "external", "dag_id": self.external_dag_id, "task_ids": None if ids is None else list(ids),
            "group_id": self.external_task_group_id, "allowed_states": self.allowed_states,
            "failed_or_skipped_states": self.failed_states + self.skipped_states,
            "execution_delta": 0.0 if delta is None else delta.total_seconds(), "poke_interval": self.poke_interval,
        }

    def _dates(self, context):
        date = context["dag_run"].logical_date or context["dag_run"].run_after
        if self.execution_delta is not None:
            return [date - self.execution_delta]
        if self.execution_date_fn is not None:
            available = AvailableArguments(context, {})
            dates = self.execution_date_fn(date, **keyword_arguments(self.execution_date_fn, [date], available, {}))
            return dates if isinstance(dates, list) else [dates]
        return [date]

    def poke(self, context):
        if self.external_task_ids is not None and len(set(self.external_task_ids)) < len(self.external_task_ids):
            raise ValueError("Duplicate task_ids passed in external_task_ids parameter")
        if self.check_existence and not self._has_checked_existence:
            self._check_existence(context)
        dates = self._dates(context)
        if self.failed_states and self._count(context, dates, self.failed_states) > 0:
            message = f"Some of the external tasks of {self.external_dag_id} failed."
            raise AirflowSkipException(message) if self.soft_fail else ExternalTaskFailedError(message)
        if self.skipped_states and self._count(context, dates, self.skipped_states) > 0:
            raise AirflowSkipException(f"Some of the external tasks of {self.external_dag_id} reached a state in skipped_states.")
        return self._count(context, dates, self.allowed_states) == len(dates)

    def _check_existence(self, context):
        try:
            dag = context["ti"].server.dag(self.external_dag_id)
        except DagNotFound:
            raise ExternalDagNotFoundError(f"The external DAG {self.external_dag_id} does not exist.") from None
        for task_id in self.external_task_ids or ():
            if task_id not in dag["task_ids"]:
                raise ExternalTaskNotFoundError(f"The external task {task_id} in DAG {self.external_dag_id} does not exist.")
        if self.external_task_group_id and self.external_task_group_id not in dag["group_ids"]:
            raise ExternalTaskGroupNotFoundError(
                f"The external task group '{self.external_task_group_id}' in DAG '{self.external_dag_id}' does not exist.")
        self._has_checked_existence = True

    def _count(self, context, dates, states):
        count = context["ti"].server.count(self.external_dag_id, self.external_task_ids, self.external_task_group_id,
                                           [date.astimezone(timezone.utc).isoformat() for date in dates], states)
        if self.external_task_ids is not None:
            return count / len(self.external_task_ids)
        return count


class ExternalTaskMarker(BaseOperator):
    """Documents that a task of another DAG waits for this one; does nothing itself."""

    template_fields = ("external_dag_id", "external_task_id", "logical_date")
    inherits_from_empty_operator = True
    operator_extra_links = [ExternalDagLink()]

    def __init__(self, *, external_dag_id, external_task_id, logical_date="{{ logical_date.isoformat() }}",
                 recursion_depth=10, **others):
        super().__init__(**others)
        if recursion_depth <= 0:
            raise ValueError("recursion_depth should be a positive integer")
        self.external_dag_id = external_dag_id
        self.external_task_id = external_task_id
        self.logical_date = logical_date
        self.recursion_depth = recursion_depth

    def execute(self, context):
        return None
