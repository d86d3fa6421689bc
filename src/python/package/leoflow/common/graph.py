"""Protocols of DAGs, tasks and groups, for annotations in modules that must not import their classes. Only a warm
Python loads this module, because it loads all of `common`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol


class Task(Protocol):
    """An operator, mapped or not."""

    task_id: str
    dag: Dag | None
    task_group: Group | None
    template_fields: Iterable[str]
    upstream_task_ids: set[str]
    downstream_task_ids: set[str]
    is_setup: bool
    is_teardown: bool
    priority_weight: int
    weight_rule: str

    @property
    def upstream_list(self) -> list[Task]: ...

    @property
    def downstream_list(self) -> list[Task]: ...

    def get_flat_relative_ids(self, *, upstream: bool = False) -> set[str]: ...

    def set_downstream(self, other: Any, edge_modifier: Any = None) -> None: ...


class Group(Protocol):
    """A task group, or the root group of a DAG."""

    dag: Dag
    group_id: str | None
    default_args: dict[str, Any]


class Dag(Protocol):
    dag_id: str
    default_args: dict[str, Any]
    task_group: Group
    task_dict: dict[str, Task]
    edge_labels: dict[tuple[str, str], str]
    # Used by templates.
    folder: str
    fileloc: str | None
    template_searchpath: Iterable[str] | None
    template_undefined: type | None
    jinja_environment_kwargs: dict[str, Any] | None
    user_defined_macros: dict[str, Any] | None
    user_defined_filters: dict[str, Any] | None

    def add_task(self, task: Any) -> None: ...

    def get_task(self, task_id: str) -> Task: ...
