"""`with setup_task:` places the tasks that are defined inside after the setup and before its teardown.

<https://airflow.apache.org/docs/apache-airflow/stable/howto/setup-and-teardown.html>
"""

from __future__ import annotations

from leoflow.common.exceptions import AirflowException

TYPE_CHECKING = False
if TYPE_CHECKING:
    from leoflow.common.graph import Task

# Scopes of the `with` blocks that are open, innermost last.
_open = []


class Scope:
    """A `with` block: its setups or teardowns (`owners`), and the tasks defined inside."""

    def __init__(self, tasks):
        self.owners = tasks
        self.tasks = []

    def add_task(self, task):
        for end in task.leaf_tasks():
            if end not in self.tasks:
                self.tasks.append(end)

    @property
    def setups(self):
        setups = [owner for owner in self.owners if owner.is_setup]
        return setups or related(self.owners, "is_setup", upstream=True)

    @property
    def teardowns(self):
        teardowns = [owner for owner in self.owners if owner.is_teardown]
        return teardowns or related(self.owners, "is_teardown", upstream=False)


def related(tasks, kind, upstream):
    """Returns the setups upstream of the tasks, or the teardowns downstream, through edges between such tasks only.
    `kind` is `is_setup` or `is_teardown`."""
    relatives, pending = [], list(tasks)
    while pending:
        task = pending.pop(0)
        for other in task.upstream_list if upstream else task.downstream_list:
            if getattr(other, kind) and other not in relatives:
                relatives.append(other)
                pending.append(other)
    return relatives


def collect(task: Task) -> None:
    """Called for each new operator: adds it to the innermost open scope."""
    if _open:
        _open[-1].tasks.append(task)


def enter(tasks: list[Task]) -> Scope:
    if not tasks or not all(task.is_setup or task.is_teardown for task in tasks):
        raise AirflowException("Only setup/teardown tasks can be used as context managers.")
    if len({task.is_setup for task in tasks}) > 1:
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
    """Ends the innermost scope: links its setups to its tasks, and its tasks to its teardowns."""
    scope = _open.pop()
    tasks = [task for task in scope.tasks if not task.is_setup and not task.is_teardown]
    if not tasks:
        return
    tops = [task for task in tasks if not task.upstream_task_ids] or tasks[:1]
    bottoms = [task for task in tasks if not task.downstream_task_ids] or tasks[-1:]
    for up in scope.setups:
        for task in tops:
            up.set_downstream(task)
    for down in scope.teardowns:
        for task in bottoms:
            task.set_downstream(down)
