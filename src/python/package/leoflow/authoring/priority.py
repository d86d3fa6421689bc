"""How much a task weighs when there is no room for all.

<https://airflow.apache.org/docs/apache-airflow/stable/administration-and-deployment/priority-weight.html>
"""

from __future__ import annotations

import enum

from leoflow.authoring.states import Text
from leoflow.common.exceptions import Unsupported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from leoflow.authoring.abstract_operator import AbstractOperator


class WeightRule(Text):
    DOWNSTREAM = "downstream"
    UPSTREAM = "upstream"
    ABSOLUTE = "absolute"


def check_weight_rule(rule: Any) -> str:
    text = rule.value if isinstance(rule, enum.Enum) else rule
    if not isinstance(text, str):
        raise Unsupported(f"weight_rule={rule!r} (a strategy of one's own)")
    if text not in {one.value for one in WeightRule}:
        raise ValueError(f"The weight_rule must be one of {sorted(one.value for one in WeightRule)}; received '{rule}'.")
    return text


def total(task: AbstractOperator) -> int:
    """The weight that the scheduler compares."""
    own = task.priority_weight
    if task.weight_rule == "absolute":
        return own
    relatives = task.get_flat_relative_ids(upstream=task.weight_rule == "upstream")
    whole = own + sum(task.dag.get_task(one).priority_weight for one in relatives)
    return max(-(2**31), min(whole, 2**31 - 1))
