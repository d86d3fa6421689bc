"""The arrows between tasks, and what they may lead from and to: operators, their results, groups."""

from __future__ import annotations

import re

from leoflow.common.exceptions import AirflowException, DuplicateTaskIdFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from leoflow.authoring.abstract_operator import AbstractOperator

KEY = re.compile(r"[\w.-]+")
GROUP_KEY = re.compile(r"[\w-]+")
LONGEST_KEY = 250
LONGEST_GROUP_KEY = 200


def check_key(kind: str, key: Any) -> None:
    if not isinstance(key, str):
        raise TypeError(f"The {kind} has to be a string and is {type(key).__name__}:{key}")
    if len(key) > LONGEST_KEY:
        raise AirflowException(f"The {kind} has to be less than {LONGEST_KEY} characters, not {len(key)}")
    if not KEY.fullmatch(key) or not key.strip("."):
        raise AirflowException(
            f"The {kind} {key!r} has to be made of letters, digits, dashes, dots and underscores, "
            "and of more than dots"
        )


def check_group_key(key: Any) -> None:
    if not isinstance(key, str):
        raise TypeError(f"The key has to be a string and is {type(key).__name__}:{key}")
    if len(key) > LONGEST_GROUP_KEY:
        raise AirflowException(f"The key has to be less than {LONGEST_GROUP_KEY} characters, not {len(key)}")
    if not GROUP_KEY.fullmatch(key):
        raise AirflowException(f"The key {key!r} has to be made of letters, digits, dashes and underscores")


def duplicate(task_id: str) -> DuplicateTaskIdFound:
    return DuplicateTaskIdFound(f"Task id {task_id!r} has already been added to the DAG")


class Arrows:
    """`>>` and `<<`, for whoever has `set_downstream` and `set_upstream`."""

    def __rshift__(self, other):
        self.set_downstream(other)
        return other

    def __lshift__(self, other):
        self.set_upstream(other)
        return other

    # A list on the left has no operator of its own for this.
    def __rrshift__(self, other):
        self.set_upstream(other)
        return self

    def __rlshift__(self, other):
        self.set_downstream(other)
        return self


class EdgeModifier(Arrows):
    """`Label("…")` between two tasks: it names the arrow.

    As in Airflow, where not all of its tasks are of one group, those that are of a group stand for it: the arrow joins all
    of that group, and so does its name.
    """

    def __init__(self, label=None):
        self.label = label
        self._above, self._below = [], []

    def set_upstream(self, other, edge_modifier=None):
        self._keep(other, self._above)
        for down in self._below:
            down.set_upstream(other, edge_modifier=self)

    def set_downstream(self, other, edge_modifier=None):
        self._keep(other, self._below)
        for up in self._above:
            up.set_downstream(other, edge_modifier=self)

    def _keep(self, other, side):
        side += flatten(other)
        if not self._above or not self._below:
            return
        groups = {group for one in [*self._above, *self._below] for group in one.groups_of()}
        if len(groups) != 1:
            self._above = [one.or_its_group() for one in self._above]
            self._below = [one.or_its_group() for one in self._below]


def Label(label):
    """<https://airflow.apache.org/docs/apache-airflow/stable/core-concepts/dags.html#edge-labels>"""
    return EdgeModifier(label)


class Linkable(Arrows):
    """What `>>` and `<<` work on. `tops` are the tasks that an arrow to it leads to, `bottoms` those
    that one from it begins at."""

    is_group = False

    def tops(self):
        raise NotImplementedError

    def bottoms(self):
        raise NotImplementedError

    @property
    def roots(self):
        return self.tops()

    @property
    def leaves(self):
        return self.bottoms()

    def groups_of(self):
        """The ids of the groups that its tasks are of, None for the DAG's own."""
        return {task.task_group.group_id for task in self.tops() if task.task_group is not None}

    def or_its_group(self):
        """The group that stands for it where a label joins groups."""
        return self

    def noted(self, other, downstream, edge_modifier=None):
        """Told of each arrow; groups remember theirs."""

    def set_downstream(self, other, edge_modifier=None):
        for one in flatten(other):
            if isinstance(one, EdgeModifier):
                for task in self.bottoms():
                    one.set_upstream(task)
                continue
            link(self, one, edge_modifier, begun_by=self)

    def set_upstream(self, other, edge_modifier=None):
        for one in flatten(other):
            if isinstance(one, EdgeModifier):
                for task in self.tops():
                    one.set_downstream(task)
                continue
            link(one, self, edge_modifier, begun_by=self)


def flatten(other: Any) -> list[Linkable | EdgeModifier]:
    found = list(other) if isinstance(other, (list, tuple, set)) else [other]
    for one in found:
        if not isinstance(one, (Linkable, EdgeModifier)):
            raise AirflowException(
                f"Relationships can only be set between Operators; received {type(one).__name__}"
            )
    return found


def link(above, below, edge_modifier, begun_by):
    ups, downs = above.bottoms(), below.tops()
    above.noted(below, True, edge_modifier)
    below.noted(above, False, edge_modifier)
    if begun_by.is_group:
        # It has each of its ends begin one, of which the other is told as well; the label is at the group's join only.
        edge_modifier = None
        for end in ups if begun_by is above else downs:
            if begun_by is above:
                below.noted(end, False)
            else:
                above.noted(end, True)
    for up in ups:
        for down in downs:
            connect(up, down, edge_modifier)


def connect(up: AbstractOperator, down: AbstractOperator, edge_modifier: EdgeModifier | None = None) -> None:
    """One arrow between two operators; the DAG of one becomes that of the other."""
    if up.dag is None and down.dag is not None:
        down.dag.add_task(up)
    elif down.dag is None and up.dag is not None:
        up.dag.add_task(down)
    if up.dag is not down.dag:
        raise AirflowException(
            f"Tried to set relationships between tasks in more than one Dag: {[up.dag, down.dag]}"
        )
    if up.dag is None:
        raise AirflowException(f"Tried to create relationships between tasks that don't have Dags yet: {up}, {down}")
    up.downstream_task_ids.add(down.task_id)
    down.upstream_task_ids.add(up.task_id)
    name(up.dag, up.task_id, down.task_id, edge_modifier)


def name(dag: Any, above: str, below: str, edge_modifier: EdgeModifier | None) -> None:
    """`above` and `below` are ids of tasks, or of the joins of groups."""
    if edge_modifier is not None and edge_modifier.label:
        dag.edge_labels[above, below] = edge_modifier.label


def chain(*tasks):
    """Each after the one before it; two lists side by side are paired."""
    for up, down in zip(tasks, tasks[1:], strict=False):
        if isinstance(up, Linkable):
            up.set_downstream(down)
        elif isinstance(down, Linkable):
            down.set_upstream(up)
        else:
            left, right = listed(up), listed(down)
            if len(left) != len(right):
                raise AirflowException(
                    f"Chain not supported for different length Iterable. Got {len(left)} and {len(right)}."
                )
            for one, other in zip(left, right, strict=True):
                one.set_downstream(other)


def listed(value):
    if isinstance(value, EdgeModifier):
        return [value]
    if not isinstance(value, (list, tuple, set)):
        raise TypeError(f"Chain not supported between instances of {type(value)}")
    return list(value)


def chain_linear(*elements):
    """Each after all of those before it, lists included."""
    if not elements:
        raise ValueError("No tasks provided; nothing to do.")
    linked = False
    before = None
    for element in elements:
        now = flatten(element)
        if before is not None:
            for up in before:
                if isinstance(element, (list, tuple, set)) and not now:
                    continue
                up.set_downstream(now)
                linked = True
        if now:
            before = now
    if not linked:
        raise ValueError("No dependencies were set. Did you forget to expand with `*`?")


def cross_downstream(from_tasks, to_tasks):
    """Each of the second after each of the first."""
    for task in from_tasks:
        task.set_downstream(to_tasks)
