"""Airflow's exceptions, and exceptions for unsupported features and missing packages."""

from leoflow.common.hints import airflow_2
from leoflow.common.hints.commands import command
from leoflow.common.hints.packages import how_to_add, names_in, provider_package
from leoflow.common.reports import user_line


class AirflowException(Exception):
    """Base of Airflow's exceptions."""


class AirflowConfigException(AirflowException):
    """A setting is missing or invalid."""


class AirflowSkipException(AirflowException):
    """Raised by a task to end as skipped."""


class AirflowFailException(AirflowException):
    """Raised by a task to fail without using its remaining retries."""


class AirflowSensorTimeout(AirflowException):
    """A sensor has waited longer than its timeout."""


class AirflowInactiveAssetInInletOrOutletException(AirflowException):
    """An inlet or outlet of the task is not active."""


class AirflowRescheduleException(AirflowException):
    """Raised by a sensor to poke again later, without a process until then."""

    def __init__(self, reschedule_date, *, reschedule_timezone=None):
        super().__init__()
        self.reschedule_date = reschedule_date


class DownstreamTasksSkipped(AirflowException):
    """Raised by a task to skip downstream tasks."""

    def __init__(self, *, tasks):
        super().__init__()
        self.tasks = tasks


class ParamValidationError(AirflowException):
    """A param's value does not match its schema."""


class AirflowTimetableInvalid(AirflowException):
    """A schedule is invalid."""


class AirflowOptionalProviderFeatureException(AirflowException):
    """An optional feature needs a provider package that is not installed."""


class TaskNotFound(AirflowException):
    """The DAG has no task with that id."""


class DagNotFound(AirflowException):
    """There is no DAG with that id."""


class DagRunAlreadyExists(AirflowException):
    """The DAG already has a run with that id or logical date."""


class ExternalTaskNotFoundError(AirflowException):
    """The task that an ExternalTaskSensor waits for does not exist."""


class ExternalDagNotFoundError(ExternalTaskNotFoundError):
    """The DAG that an ExternalTaskSensor waits for does not exist."""


class ExternalTaskFailedError(AirflowException):
    """A task that an ExternalTaskSensor waits for failed."""


class ExternalTaskGroupNotFoundError(ExternalTaskNotFoundError):
    """The task group that an ExternalTaskSensor waits for does not exist."""


class UnmappableXComTypePushed(AirflowException):
    """A task whose result other tasks are mapped over returned neither a list nor a dict."""


class UnmappableXComLengthPushed(AirflowException):
    """A task whose result other tasks are mapped over returned more than `max_map_length` elements."""


class TaskDeferred(BaseException):
    """Raised by a task to end its process until a trigger fires; then `method_name` of its operator is called."""

    def __init__(self, *, trigger, method_name, kwargs=None, timeout=None):
        super().__init__()
        self.trigger = trigger
        self.method_name = method_name
        self.kwargs = kwargs
        if isinstance(timeout, (int, float)):
            import datetime

            timeout = datetime.timedelta(seconds=timeout)
        self.timeout = timeout
        if timeout is not None and not hasattr(timeout, "total_seconds"):
            raise ValueError("Timeout value must be a timedelta, or seconds")

    def __repr__(self):
        return f"<TaskDeferred trigger={self.trigger} method={self.method_name}>"


class TaskDeferralError(AirflowException):
    """The trigger of a deferred task failed."""


class TaskDeferralTimeout(AirflowException):
    """The trigger of a deferred task timed out."""


class AirflowTaskTimeout(BaseException):
    """Raised in a task that exceeds its execution_timeout."""


class AirflowTaskTerminated(BaseException):
    """Raised in a task that received SIGTERM."""


class AirflowRuntimeError(Exception):
    """A Variable does not exist, or the server refused a request."""


class AirflowNotFoundException(AirflowException):
    """A requested object, such as a Connection, does not exist."""


class DuplicateTaskIdFound(AirflowException):
    """Two tasks of a DAG have the same id."""


class TaskAlreadyInTaskGroup(AirflowException):
    """A task was added to a second group."""

    def __init__(self, task_id, current_group, new_group):
        super().__init__(f"cannot add {task_id!r} to {new_group!r} (already in {current_group!r})")


class AirflowDagCycleException(AirflowException):
    """The dependencies of a DAG's tasks form a cycle."""


class MissingPackage(ImportError):
    """A package that DAG files expect is not installed."""

    def __init__(self, name, use):
        super().__init__(
            f"{use} needs the Python package {name}, which is not installed. "
            f"`{command('setup')}` fetches it; offline, install it with pip for the Python that runs the DAGs.",
            name=name,
        )


class XComNotFound(AirflowException):
    """An argument refers to an XCom that was never pushed."""


class Unsupported(AirflowException, ImportError):
    """An Airflow feature that Leoflow does not support, reported with file and line.

    It is also an ImportError, so that a DAG file with a fallback for a missing package uses its fallback.
    """

    def __init__(self, thing, place=None, suffix=""):
        file, line = place or user_line()
        super().__init__(f'{file}:{line}: {thing} is not supported by Leoflow{suffix}')


class Replaced(Unsupported):
    """A module or name that has a replacement, such as one that Airflow 3 removed."""

    def __init__(self, advice, place=None):
        place = place or user_line()
        ImportError.__init__(self, f"{place[0]}:{place[1]}: {advice}")


def unsupported_name(name: str) -> Unsupported:
    """Returns the error for an Airflow name that the small package lacks. Its message has the replacement of a name
    that Airflow 3 removed, or the dependency that installs Airflow's SDK."""
    import linecache

    file, line = user_line()
    module = name.removeprefix("the module ")
    removed = airflow_2.removed_import(names_in(linecache.getline(file, line), module) or [module])
    if removed:
        return Replaced(removed, (file, line))
    package = provider_package(module) or "apache-airflow"
    suffix = f"'s own small Airflow package. Apache Airflow's own SDK has it: {how_to_add(package)}"
    return Unsupported(name, (file, line), suffix)
