"""Priority weights, which decide the order of queued tasks.

<https://airflow.apache.org/docs/apache-airflow/stable/administration-and-deployment/priority-weight.html>
"""

from __future__ import annotations

import enum

from leoflow.authoring.states import Text
from leoflow.common.exceptions import Unsupported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from leoflow.common.graph import Task


class WeightRule(Text):
    DOWNSTREAM = "downstream"
    UPSTREAM = "upstream"
    ABSOLUTE = "absolute"


def check_weight_rule(rule: Any) -> str:
    text = rule.value if isinstance(rule, enum.Enum) else rule
    if not isinstance(text, str):
        raise Unsupported(f"weight_rule={rule!r} (a custom strategy)")
    if text not in {known_rule.value for known_rule in WeightRule}:
        raise ValueError(f"The weight_rule must be one of {sorted(known_rule.value for known_rule in WeightRule)}; received '{rule}'.")
    return text


def total(task: Task) -> int:
    """Returns the total weight, by which the scheduler orders tasks."""
    own_weight = task.priority_weight
    if task.weight_rule == "absolute":
        return own_weight
    relatives = task.get_flat_relative_ids(upstream=task.weight_rule == "upstream")
    total_weight = own_weight + sum(task.dag.get_task(relative_id).priority_weight for relative_id in relatives)
    return max(-(2**31), min(total_weight, 2**31 - 1))
