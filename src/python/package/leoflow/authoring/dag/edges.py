"""Edges between tasks. Their ends may be operators, XComArgs or task groups."""

from __future__ import annotations

import re

from leoflow.common.exceptions import AirflowException, DuplicateTaskIdFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from leoflow.common.graph import Task

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


class DependencyMixin:
    """Implements `>>` and `<<` with `set_downstream` and `set_upstream`."""

    def __rshift__(self, other):
        self.set_downstream(other)
        return other

    def __lshift__(self, other):
        self.set_upstream(other)
        return other

    # Called for a list on the left side, which does not implement `>>` itself.
    def __rrshift__(self, other):
        self.set_upstream(other)
        return self

    def __rlshift__(self, other):
        self.set_downstream(other)
        return self


class EdgeModifier(DependencyMixin):
    """`Label("…")` between two tasks, which labels the edge.

    As in Airflow, when the tasks are in different groups, a task in a group is replaced by its group: the edge and its
    label then connect whole groups.
    """

    def __init__(self, label=None):
        self.label = label
        self._upstream, self._downstream = [], []

    def set_upstream(self, other, edge_modifier=None):
        self._add_end(other, self._upstream)
        for down in self._downstream:
            down.set_upstream(other, edge_modifier=self)

    def set_downstream(self, other, edge_modifier=None):
        self._add_end(other, self._downstream)
        for up in self._upstream:
            up.set_downstream(other, edge_modifier=self)

    def _add_end(self, other, ends):
        ends += flatten(other)
        if not self._upstream or not self._downstream:
            return
        groups = {group for node in [*self._upstream, *self._downstream] for group in node.task_group_ids()}
        if len(groups) != 1:
            self._upstream = [node.self_or_group() for node in self._upstream]
            self._downstream = [node.self_or_group() for node in self._downstream]


def Label(label):
    """<https://airflow.apache.org/docs/apache-airflow/stable/core-concepts/dags.html#edge-labels>"""
    return EdgeModifier(label)


class Linkable(DependencyMixin):
    """An end of an edge: an operator, an XComArg or a task group. An incoming edge leads to the tasks `root_tasks()`, an
    outgoing edge starts at the tasks `leaf_tasks()`."""

    is_group = False

    def root_tasks(self):
        raise NotImplementedError

    def leaf_tasks(self):
        raise NotImplementedError

    @property
    def roots(self):
        return self.root_tasks()

    @property
    def leaves(self):
        return self.leaf_tasks()

    def task_group_ids(self):
        """Returns the group ids of the tasks `root_tasks()`; None is the DAG's root group."""
        return {task.task_group.group_id for task in self.root_tasks() if task.task_group is not None}

    def self_or_group(self):
        """Returns the group that replaces this end if a label connects groups."""
        return self

    def record_edge(self, other, downstream, edge_modifier=None):
        """Called with the other end of each new edge. Groups override this method to record their edges."""

    def set_downstream(self, other, edge_modifier=None):
        for node in flatten(other):
            if isinstance(node, EdgeModifier):
                for task in self.leaf_tasks():
                    node.set_upstream(task)
                continue
            link(self, node, edge_modifier, initiator=self)

    def set_upstream(self, other, edge_modifier=None):
        for node in flatten(other):
            if isinstance(node, EdgeModifier):
                for task in self.root_tasks():
                    node.set_downstream(task)
                continue
            link(node, self, edge_modifier, initiator=self)


def flatten(other: Any) -> list[Linkable | EdgeModifier]:
    """Returns a list of ends, for one end or for a list, tuple or set of them. Raises AirflowException for other
    types."""
    nodes = list(other) if isinstance(other, (list, tuple, set)) else [other]
    for node in nodes:
        if not isinstance(node, (Linkable, EdgeModifier)):
            raise AirflowException(
                f"Relationships can only be set between Operators; received {type(node).__name__}"
            )
    return nodes


def link(upstream, downstream, edge_modifier, initiator):
    """Adds the edges between two ends. `initiator` is the end whose `>>` or `<<` was called."""
    ups, downs = upstream.leaf_tasks(), downstream.root_tasks()
    upstream.record_edge(downstream, True, edge_modifier)
    downstream.record_edge(upstream, False, edge_modifier)
    if initiator.is_group:
        # As in Airflow, the other end also records an edge with each root or leaf task of the group. Only the edge of
        # the group's join node has the label.
        edge_modifier = None
        for end in ups if initiator is upstream else downs:
            if initiator is upstream:
                downstream.record_edge(end, False)
            else:
                upstream.record_edge(end, True)
    for up in ups:
        for down in downs:
            connect(up, down, edge_modifier)


def connect(up: Task, down: Task, edge_modifier: EdgeModifier | None = None) -> None:
    """Adds an edge between two operators; an operator without a DAG joins the DAG of the other."""
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
    label_edge(up.dag, up.task_id, down.task_id, edge_modifier)


def label_edge(dag: Any, upstream: str, downstream: str, edge_modifier: EdgeModifier | None) -> None:
    """Stores the label of an edge. `upstream` and `downstream` are ids of tasks or of join nodes of groups."""
    if edge_modifier is not None and edge_modifier.label:
        dag.edge_labels[upstream, downstream] = edge_modifier.label


def chain(*tasks):
    """Links each element to the next; two adjacent lists are linked pairwise."""
    for up, down in zip(tasks, tasks[1:], strict=False):
        if isinstance(up, Linkable):
            up.set_downstream(down)
        elif isinstance(down, Linkable):
            down.set_upstream(up)
        else:
            left, right = as_list(up), as_list(down)
            if len(left) != len(right):
                raise AirflowException(
                    f"Chain not supported for different length Iterable. Got {len(left)} and {len(right)}."
                )
            for upstream, downstream in zip(left, right, strict=True):
                upstream.set_downstream(downstream)


def as_list(value):
    if isinstance(value, EdgeModifier):
        return [value]
    if not isinstance(value, (list, tuple, set)):
        raise TypeError(f"Chain not supported between instances of {type(value)}")
    return list(value)


def chain_linear(*elements):
    """Links every task of each element to every task of the next."""
    if not elements:
        raise ValueError("No tasks provided; nothing to do.")
    linked = False
    previous = None
    for element in elements:
        current = flatten(element)
        if previous is not None:
            for up in previous:
                if isinstance(element, (list, tuple, set)) and not current:
                    continue
                up.set_downstream(current)
                linked = True
        if current:
            previous = current
    if not linked:
        raise ValueError("No dependencies were set. Did you forget to expand with `*`?")


def cross_downstream(from_tasks, to_tasks):
    """Makes every task of `to_tasks` depend on every task of `from_tasks`."""
    for task in from_tasks:
        task.set_downstream(to_tasks)
