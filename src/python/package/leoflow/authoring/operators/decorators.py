"""`@task`, `@setup` and `@teardown`."""

from __future__ import annotations

from leoflow.authoring.dag.task_group import TaskGroupFunction
from leoflow.authoring.operators.taskflow import DecoratedPython, TaskFunction
from leoflow.common.exceptions import AirflowException, AirflowSkipException, Unsupported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def decorator(operator_class, function, arguments) -> Any:
    if "python_callable" in arguments:
        raise TypeError("`python_callable` cannot be given: it is the function that @task decorates")
    if function is not None:
        return TaskFunction(operator_class, function, arguments)
    return lambda decorated: TaskFunction(operator_class, decorated, arguments)


def conditional(name, condition, skip_message, skips_when):
    """Returns the decorator of `@task.run_if` or `@task.skip_if`, which evaluates the condition before the task
    runs."""

    def before(context):
        result = condition(context)
        answer, message = result if isinstance(result, tuple) else (result, None)
        if bool(answer) is skips_when:
            raise AirflowSkipException(message or skip_message or "Task was skipped due to condition.")

    def decorate(function):
        if not isinstance(function, TaskFunction):
            raise TypeError(f"{name} can only be used with task. decorate with @task before @{name}.")
        earlier = function.arguments.get("pre_execute")

        def both(context):
            if earlier is not None:
                earlier(context)
            before(context)

        return function.override(pre_execute=both)

    return decorate


class Task:
    """`@task`, `@task(…)`, `@task.bash`, `@task.branch` and so on. Operators other than that of `@task` are imported on
    use, because most DAG files do not need them."""

    def __call__(self, function=None, **arguments):
        return decorator(DecoratedPython, function, arguments)

    python = __call__

    def bash(self, function=None, **arguments):
        from leoflow.authoring.operators.decorated_operators import DecoratedBash

        return decorator(DecoratedBash, function, arguments)

    def branch(self, function=None, **arguments):
        from leoflow.authoring.operators.decorated_operators import DecoratedBranch

        return decorator(DecoratedBranch, function, arguments)

    def short_circuit(self, function=None, **arguments):
        from leoflow.authoring.operators.decorated_operators import DecoratedShortCircuit

        return decorator(DecoratedShortCircuit, function, arguments)

    def sensor(self, function=None, **arguments):
        from leoflow.authoring.operators.decorated_operators import DecoratedSensor

        return decorator(DecoratedSensor, function, arguments)

    def virtualenv(self, function=None, **arguments):
        from leoflow.authoring.operators.virtualenv_operators import DecoratedVirtualenv

        return decorator(DecoratedVirtualenv, function, arguments)

    def branch_virtualenv(self, function=None, **arguments):
        from leoflow.authoring.operators.virtualenv_operators import DecoratedBranchVirtualenv

        return decorator(DecoratedBranchVirtualenv, function, arguments)

    def external_python(self, function=None, **arguments):
        from leoflow.authoring.operators.virtualenv_operators import DecoratedExternalPython

        return decorator(DecoratedExternalPython, function, arguments)

    def branch_external_python(self, function=None, **arguments):
        from leoflow.authoring.operators.virtualenv_operators import DecoratedBranchExternalPython

        return decorator(DecoratedBranchExternalPython, function, arguments)

    def run_if(self, condition, skip_message=None):
        return conditional("run_if", condition, skip_message, skips_when=False)

    def skip_if(self, condition, skip_message=None):
        return conditional("skip_if", condition, skip_message, skips_when=True)

    def __getattr__(self, name):
        raise Unsupported(f"@task.{name}")


task = Task()


def as_task(function):
    if isinstance(function, TaskGroupFunction):
        raise AirflowException("Task groups cannot be marked as setup or teardown.")
    return function if isinstance(function, TaskFunction) else task(function)


def setup(function):
    return as_task(function).copy(marks={"setup": True})


def teardown(function=None, *, on_failure_fail_dagrun=False):
    def decorate(decorated):
        return as_task(decorated).copy(marks={"teardown": True, "on_failure_fail_dagrun": on_failure_fail_dagrun})

    return decorate if function is None else decorate(function)
