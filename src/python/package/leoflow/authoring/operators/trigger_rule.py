"""Trigger rules."""

from __future__ import annotations

import enum

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from leoflow.common.graph import Dag


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
        return rule in _RULES

    @classmethod
    def all_triggers(cls):
        return set(_RULES)


_RULES = {rule.value: rule for rule in TriggerRule}


def check_trigger_rule(rule: Any, task_id: str, dag: Dag | None) -> TriggerRule:
    text = rule.value if isinstance(rule, enum.Enum) else rule
    if not isinstance(text, str) or not TriggerRule.is_valid(text):
        inside = f"{dag.dag_id}.{task_id}" if dag is not None else task_id
        raise ValueError(
            f"The trigger_rule must be one of {sorted(TriggerRule.all_triggers())},'{inside}'; received '{rule}'."
        )
    return _RULES[text]
