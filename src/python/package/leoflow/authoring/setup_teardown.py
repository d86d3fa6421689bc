"""`with setup_task:` - what is made inside comes after the setup and before its teardown.

<https://airflow.apache.org/docs/apache-airflow/stable/howto/setup-and-teardown.html>
"""

from __future__ import annotations

from leoflow.common.exceptions import AirflowException

TYPE_CHECKING = False
if TYPE_CHECKING:
    from leoflow.authoring.abstract_operator import AbstractOperator

_open = []


class Scope:
    def __init__(self, tasks):
        self.owners = tasks
        self.tasks = []

    def add_task(self, task):
        for one in task.bottoms():
            if one not in self.tasks:
                self.tasks.append(one)

    @property
    def setups(self):
        own = [one for one in self.owners if one.is_setup]
        return own or related(self.owners, "is_setup", upstream=True)

    @property
    def teardowns(self):
        own = [one for one in self.owners if one.is_teardown]
        return own or related(self.owners, "is_teardown", upstream=False)


def related(tasks, kind, upstream):
    """Setups above, or teardowns below, through others of their kind."""
    found, waiting = [], list(tasks)
    while waiting:
        one = waiting.pop(0)
        for other in one.upstream_list if upstream else one.downstream_list:
            if getattr(other, kind) and other not in found:
                found.append(other)
                waiting.append(other)
    return found


def collect(task: AbstractOperator) -> None:
    """Of each operator that is made: those inside a scope belong to it."""
    if _open:
        _open[-1].tasks.append(task)


def enter(tasks: list[AbstractOperator]) -> Scope:
    if not tasks or not all(one.is_setup or one.is_teardown for one in tasks):
        raise AirflowException("Only setup/teardown tasks can be used as context managers.")
    if len({one.is_setup for one in tasks}) > 1:
        raise AirflowException("All tasks in the list must be either setup or teardown tasks")
    scope = Scope(tasks)
    if _open:
        outer = _open[-1]
        for up in outer.setups:
            for down in scope.setups:
                up.set_downstream(down)
        for up in scope.teardowns:
            for down in outer.teardowns:
                up.set_downstream(down)
    _open.append(scope)
    return scope


def leave() -> None:
    scope = _open.pop()
    tasks = [one for one in scope.tasks if not one.is_setup and not one.is_teardown]
    if not tasks:
        return
    tops = [one for one in tasks if not one.upstream_task_ids] or tasks[:1]
    bottoms = [one for one in tasks if not one.downstream_task_ids] or tasks[-1:]
    for up in scope.setups:
        for one in tops:
            up.set_downstream(one)
    for down in scope.teardowns:
        for one in bottoms:
            one.set_downstream(down)
