"""The operator that triggers a run of another DAG."""

import json
import time
from datetime import datetime, timedelta

from leoflow.authoring.operators.base_operator import BaseOperator
from leoflow.authoring.operators.links import TriggerDagRunLink
from leoflow.common.dates import aware, utcnow
from leoflow.common.exceptions import AirflowException, AirflowFailException, AirflowSkipException, DagRunAlreadyExists

_UNSET = object()


class TriggerDagRunOperator(BaseOperator):
    """<https://airflow.apache.org/docs/apache-airflow-providers-standard/stable/operators/trigger_dag_run.html>"""

    template_fields = ("trigger_dag_id", "trigger_run_id", "logical_date", "conf", "wait_for_completion",
                       "skip_when_already_exists")
    template_fields_renderers = {"conf": "py"}
    operator_extra_links = [TriggerDagRunLink()]
    ui_color = "#ffefeb"

    def __init__(self, *, trigger_dag_id, trigger_run_id=None, conf=None, logical_date=_UNSET, run_after=_UNSET,
                 reset_dag_run=False, wait_for_completion=False, poke_interval=60, allowed_states=None,
                 failed_states=None, skip_when_already_exists=False, fail_when_dag_is_paused=False, note=None,
                 deferrable=False, openlineage_inject_parent_info=True, **others):
        super().__init__(**others)
        self.trigger_dag_id = trigger_dag_id
        self.trigger_run_id = trigger_run_id
        self.conf = conf
        if logical_date is _UNSET:
            self.logical_date = None if run_after is not _UNSET else utcnow
        elif logical_date is None or isinstance(logical_date, (str, datetime)):
            self.logical_date = logical_date
        else:
            raise TypeError(f"Expected str, datetime.datetime, or None for parameter 'logical_date'. Got {type(logical_date).__name__}")
        self.run_after = None if run_after is _UNSET else run_after
        self.reset_dag_run = reset_dag_run
        self.wait_for_completion = wait_for_completion
        self.poke_interval = poke_interval
        self.allowed_states = [str(state) for state in allowed_states] if allowed_states else ["success"]
        self.failed_states = ["failed"] if failed_states is None else [str(state) for state in failed_states]
        self.skip_when_already_exists = skip_when_already_exists
        self.fail_when_dag_is_paused = fail_when_dag_is_paused
        self.note = note
        self.deferrable = deferrable

    def execute(self, context):
        ti = context["ti"]
        conf = json.loads(self.conf) if isinstance(self.conf, str) else self.conf
        try:
            json.dumps(conf)
        except TypeError as error:
            raise ValueError(f"conf parameter should be JSON Serializable: {error}") from None
        date = self.logical_date() if self.logical_date is utcnow else aware("logical_date", self.logical_date)
        run_after = aware("run_after", self.run_after)
        if self.fail_when_dag_is_paused and ti.server.dag(self.trigger_dag_id)["is_paused"]:
            raise AirflowException(f"Dag {self.trigger_dag_id} is paused")
        run_id = self.trigger_run_id or f"manual__{(run_after or date or utcnow()).isoformat()}"
        try:
            ti.server.trigger(self.trigger_dag_id, run_id, conf or {}, date, run_after, self.note, self.reset_dag_run)
        except DagRunAlreadyExists as error:
            if self.skip_when_already_exists:
                raise AirflowSkipException(f"Dag Run {run_id} of {self.trigger_dag_id} exists already") from None
            raise AirflowFailException(str(error)) from None
        ti.xcom_push(key="trigger_run_id", value=run_id)
        if self.wait_for_completion and self.deferrable:
            # Imported here, because it imports asyncio and few tasks defer.
            from leoflow.authoring.triggers import DagStateTrigger

            trigger = DagStateTrigger(dag_id=self.trigger_dag_id, states=[*self.allowed_states, *self.failed_states],
                                      run_ids=[run_id], poll_interval=seconds_in(self.poke_interval))
            self.defer(trigger=trigger, method_name="execute_complete")
        while self.wait_for_completion:
            time.sleep(seconds_in(self.poke_interval))
            if self._is_complete(ti.server.run_state(self.trigger_dag_id, run_id)):
                return

    def execute_complete(self, context, event):
        """Called when the trigger has fired; `event` is the payload of DagStateTrigger."""
        for run_id in event[1]["run_ids"]:
            self._is_complete(event[1][run_id])

    def _is_complete(self, state):
        if state in self.failed_states:
            raise AirflowException(f"{self.trigger_dag_id} failed with failed state {state}")
        return state in self.allowed_states


def seconds_in(value):
    return value.total_seconds() if isinstance(value, timedelta) else float(value)
