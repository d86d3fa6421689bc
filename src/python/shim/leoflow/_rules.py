"""Trigger rules, and the names of states."""

import enum


class Text(str, enum.Enum):
    def __str__(self):
        return self.value


class TriggerRule(str, enum.Enum):
    """<https://airflow.apache.org/docs/apache-airflow/stable/core-concepts/dags.html#trigger-rules>"""

    ALL_SUCCESS = "all_success"
    ALL_FAILED = "all_failed"
    ALL_DONE = "all_done"
    ALL_DONE_MIN_ONE_SUCCESS = "all_done_min_one_success"
    ALL_DONE_SETUP_SUCCESS = "all_done_setup_success"
    ONE_SUCCESS = "one_success"
    ONE_FAILED = "one_failed"
    ONE_DONE = "one_done"
    NONE_FAILED = "none_failed"
    NONE_SKIPPED = "none_skipped"
    ALWAYS = "always"
    NONE_FAILED_MIN_ONE_SUCCESS = "none_failed_min_one_success"
    ALL_SKIPPED = "all_skipped"

    @classmethod
    def is_valid(cls, rule):
        return rule in {one.value for one in cls}

    @classmethod
    def all_triggers(cls):
        return {one.value for one in cls}


class TaskInstanceState(Text):
    """<https://airflow.apache.org/docs/apache-airflow/stable/core-concepts/tasks.html#task-instances>"""

    REMOVED = "removed"
    SCHEDULED = "scheduled"
    QUEUED = "queued"
    RUNNING = "running"
    SUCCESS = "success"
    RESTARTING = "restarting"
    FAILED = "failed"
    UP_FOR_RETRY = "up_for_retry"
    UP_FOR_RESCHEDULE = "up_for_reschedule"
    UPSTREAM_FAILED = "upstream_failed"
    SKIPPED = "skipped"
    DEFERRED = "deferred"


class DagRunState(Text):
    QUEUED = "queued"
    RUNNING = "running"
    SUCCESS = "success"
    FAILED = "failed"


class State:
    """Both kinds under one name, as older DAG files have them."""

    NONE = None
    REMOVED = TaskInstanceState.REMOVED
    SCHEDULED = TaskInstanceState.SCHEDULED
    QUEUED = TaskInstanceState.QUEUED
    RUNNING = TaskInstanceState.RUNNING
    SUCCESS = TaskInstanceState.SUCCESS
    FAILED = TaskInstanceState.FAILED
    UP_FOR_RETRY = TaskInstanceState.UP_FOR_RETRY
    UP_FOR_RESCHEDULE = TaskInstanceState.UP_FOR_RESCHEDULE
    UPSTREAM_FAILED = TaskInstanceState.UPSTREAM_FAILED
    SKIPPED = TaskInstanceState.SKIPPED
    DEFERRED = TaskInstanceState.DEFERRED


def check_trigger_rule(rule, task_id, dag):
    text = rule.value if isinstance(rule, enum.Enum) else rule
    if not isinstance(text, str) or not TriggerRule.is_valid(text):
        inside = f"{dag.dag_id}.{task_id}" if dag is not None else task_id
        raise ValueError(
            f"The trigger_rule must be one of {sorted(TriggerRule.all_triggers())},'{inside}'; received '{rule}'."
        )
    return TriggerRule(text)
