"""Task groups: tasks that are displayed, linked and mapped together.

<https://airflow.apache.org/docs/apache-airflow/stable/core-concepts/dags.html#taskgroups>
"""

from __future__ import annotations

import functools
import re

from leoflow.authoring.dag.edges import Linkable, check_group_key, duplicate, label_edge
from leoflow.authoring.mapping.expand_input import DictOfLists, ListOfDicts, check_list_of_dicts, check_mappable, refuse_nested
from leoflow.authoring.mapping.xcom_arg import MappedArgument
from leoflow.common import current
from leoflow.common.exceptions import AirflowException, DuplicateTaskIdFound, TaskAlreadyInTaskGroup, TaskNotFound, Unsupported
from leoflow.common.signatures import VAR_KEYWORD, parameters

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn


class TaskGroup(Linkable):
    is_group = True

    def __init__(self, group_id, group_display_name="", prefix_group_id=True, parent_group=None, dag=None,
                 default_args=None, tooltip="", doc_md=None, ui_color="CornflowerBlue", ui_fgcolor="#000",
                 add_suffix_on_collision=False):
        self.prefix_group_id = prefix_group_id
        self.children = {}
        # Edges of the group as the file defines them, for the graph view. The scheduler uses only edges between tasks.
        self.upstream_group_ids, self.downstream_group_ids = set(), set()
        self.upstream_task_ids, self.downstream_task_ids = set(), set()
        # Upstream tasks of the group. If the group is empty, they become upstream tasks of the group's downstream
        # tasks.
        self.upstream_tasks = []
        self.tooltip = tooltip
        self.doc_md = doc_md
        self.group_display_name = group_display_name
        self.parent_group = parent_group
        if group_id is None:
            # The DAG's root group, which contains all other groups.
            self.dag, self._id, self.default_args = dag, None, {}
            return
        check_group_key(group_id)
        if parent_group is None:
            dag = dag or current.dag()
            if dag is None:
                raise RuntimeError("TaskGroup can only be used inside a dag")
            self.parent_group = parent_group = current.group(dag)
        self.dag = parent_group.dag
        self.default_args = {**parent_group.default_args, **(default_args or {})}
        self._id = self.free_id(parent_group.child_id(group_id), add_suffix_on_collision)
        self.dag.group_ids[self._id] = self
        parent_group.children[self._id] = self

    def free_id(self, group_id, add_suffix):
        """Returns the group id; if it is used already, adds a number if `add_suffix` is set, else raises
        DuplicateTaskIdFound."""
        used_ids = self.dag.group_ids.keys() | self.dag.task_dict.keys()
        if group_id not in used_ids:
            return group_id
        if not add_suffix:
            raise DuplicateTaskIdFound(f"group_id {group_id!r} has already been added to the DAG")
        base = re.split(r"__\d+$", group_id)[0]
        numbers = [0]
        for used_id in used_ids:
            match = re.fullmatch(re.escape(base) + r"__(\d+)", used_id)
            numbers += [int(match[1])] if match else []
        return f"{base}__{max(numbers) + 1}"

    @property
    def group_id(self):
        return self._id

    @property
    def node_id(self):
        return self._id

    @property
    def is_root(self):
        return self._id is None

    @property
    def label(self):
        parent = self.parent_group
        if parent is not None and parent.group_id and parent.prefix_group_id:
            return self._id[len(parent.group_id) + 1:]
        return self._id

    def child_id(self, label):
        return f"{self._id}.{label}" if self._id and self.prefix_group_id else label

    def add(self, task):
        if task.task_group is not None and task.task_group is not self:
            raise TaskAlreadyInTaskGroup(task.task_id, task.task_group.group_id, self.group_id)
        if task.task_id in self.dag.group_ids or self.dag.task_dict.get(task.task_id, task) is not task:
            raise duplicate(task.task_id)
        self.children[task.task_id] = task
        task.task_group = self
        return task

    def tasks(self):
        """Yields all tasks, including those of nested groups."""
        for child in self.children.values():
            if isinstance(child, TaskGroup):
                yield from child.tasks()
            else:
                yield child

    __iter__ = tasks

    def has_task(self, task):
        return any(child is task for child in self.tasks())

    def get_child_by_label(self, label):
        return self[label]

    def __getitem__(self, label):
        child = self.children.get(self.child_id(label))
        if child is None:
            raise TaskNotFound(f"Task {label!r} not found")
        return child

    def get_roots(self):
        own_ids = {task.task_id for task in self.tasks()}
        return (task for task in self.tasks() if not task.upstream_task_ids & own_ids)

    def get_leaves(self):
        own_ids = {task.task_id for task in self.tasks()}
        leaves = []
        for task in self.tasks():
            if task.downstream_task_ids & own_ids:
                continue
            for leaf in self.before_teardown(task, own_ids) if task.is_teardown else [task]:
                if leaf not in leaves:
                    leaves.append(leaf)
        return iter(leaves)

    def before_teardown(self, teardown, own_ids):
        """Yields the tasks that precede a final teardown: tasks after the group do not wait for the teardown."""
        for task in teardown.upstream_list:
            if task.task_id not in own_ids or task.is_setup:
                continue
            if task.is_teardown:
                yield from self.before_teardown(task, own_ids)
            elif not any(not self.dag.get_task(down).is_teardown for down in task.downstream_task_ids & own_ids):
                yield task

    def root_tasks(self):
        return list(self.get_roots())

    def leaf_tasks(self):
        leaves = list(self.get_leaves())
        if leaves or any(True for _ in self.tasks()):
            return leaves
        # An empty group links its upstream tasks directly to its downstream tasks.
        return list(self.upstream_tasks)

    @property
    def upstream_join_id(self):
        return f"{self._id}.upstream_join_id"

    @property
    def downstream_join_id(self):
        return f"{self._id}.downstream_join_id"

    def task_group_ids(self):
        return {self._id}

    def record_edge(self, other, downstream, edge_modifier=None):
        if not downstream:
            self.upstream_tasks += other.leaf_tasks()
        if other.is_group:
            (self.downstream_group_ids if downstream else self.upstream_group_ids).add(other.group_id)
            others = [other.upstream_join_id if downstream else other.downstream_join_id]
        else:
            others = [task.task_id for task in other.leaf_tasks()]
            (self.downstream_task_ids if downstream else self.upstream_task_ids).update(others)
        for other_id in others:
            ends = (self.downstream_join_id, other_id) if downstream else (other_id, self.upstream_join_id)
            label_edge(self.dag, *ends, edge_modifier)

    def mapped_ancestors(self):
        """Yields the mapped groups among this group and its ancestors, innermost first."""
        group = self
        while group is not None:
            if isinstance(group, MappedTaskGroup):
                yield group
            group = group.parent_group

    def __enter__(self):
        current.enter_group(self)
        return self

    def __exit__(self, *_):
        current.leave_group()

    def as_setup(self, **_):
        raise AirflowException("Task groups cannot be marked as setup or teardown.")

    as_teardown = as_setup

    def __repr__(self):
        return f"<TaskGroup: {self._id}>"


class MappedTaskGroup(TaskGroup):
    """A task group with one copy per element of its input."""

    def __init__(self, *, expand_input, **others):
        super().__init__(**others)
        self.expand_input = expand_input

    def __exit__(self, *_):
        super().__exit__()
        for operator in self.expand_input.operators():
            operator.set_downstream(self)
        for task in self.tasks():
            if task.trigger_rule == "always":
                raise ValueError(
                    "Task-generated mapping within a mapped task group is not allowed with trigger rule 'always'"
                )


class TaskGroupFunction:
    """The result of `@task_group`: each call creates a group."""

    def __init__(self, function, arguments, partial=None):
        self.function = function
        self.arguments = arguments
        self.partial_arguments = partial
        functools.update_wrapper(self, function)

    def group_arguments(self):
        arguments = {"group_id": self.function.__name__, **self.arguments}
        import inspect

        doc = inspect.getdoc(self.function) or ""
        arguments.setdefault("tooltip", doc)
        if doc:
            arguments.setdefault("doc_md", doc)
        arguments.setdefault("add_suffix_on_collision", True)
        return arguments

    def __call__(self, *args, **kwargs):
        self.refuse_partial()
        return self.build(TaskGroup(**self.group_arguments()), args, kwargs)

    def build(self, group, args, kwargs):
        with group:
            returned = self.function(*args, **kwargs)
        return group if returned is None else returned

    def override(self, **arguments):
        return TaskGroupFunction(self.function, {**self.arguments, **arguments}, self.partial_arguments)

    def partial(self, **kwargs):
        self.refuse_partial()
        self.check_names("partial", kwargs)
        return TaskGroupFunction(self.function, self.arguments, kwargs)

    def loop(self, **_: Any) -> NoReturn:
        raise Unsupported(f"the loop of the task group {self.function.__name__!r} (of Airflow 3.4)")

    def refuse_partial(self):
        if self.partial_arguments is not None:
            raise TypeError("a task group with partial() arguments cannot be called: use expand()")

    def check_names(self, method, kwargs):
        accepted = parameters(self.function)
        if any(parameter.kind == VAR_KEYWORD for parameter in accepted.values()):
            return
        unknown = [name for name in kwargs if name not in accepted]
        if unknown:
            names = ", ".join(map(repr, unknown))
            raise TypeError(f"{method}() got an unexpected keyword argument {names}")

    def expand(self, **kwargs):
        if not kwargs:
            raise TypeError("no arguments to expand against")
        self.check_names("expand", kwargs)
        check_mappable(f"{self.function.__name__}.expand()", kwargs)
        return self.map_over(DictOfLists(kwargs), kwargs)

    def expand_kwargs(self, kwargs):
        check_list_of_dicts(kwargs)
        fixed = self.partial_arguments or {}
        names = [name for name in parameters(self.function) if name not in fixed]
        return self.map_over(ListOfDicts(kwargs), names)

    def map_over(self, expand_input, names):
        refuse_nested(expand_input)
        arguments = dict(self.partial_arguments or {})
        arguments.update({name: MappedArgument(expand_input, name) for name in names})
        group = MappedTaskGroup(expand_input=expand_input, **self.group_arguments())
        return self.build(group, (), arguments)


def task_group(function=None, **arguments) -> Any:
    if function is None:
        return lambda decorated: TaskGroupFunction(decorated, arguments)
    return TaskGroupFunction(function, arguments)
