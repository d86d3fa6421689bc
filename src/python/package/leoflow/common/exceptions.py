"""The exceptions that DAG files catch and raise, and the one for what is not supported."""

from leoflow.common.packages import how_to_add, provider_package
from leoflow.common.reports import user_line


class AirflowException(Exception):
    """Base of all that Airflow raises."""


class AirflowSkipException(AirflowException):
    """Raised by a task to end as skipped."""


class AirflowFailException(AirflowException):
    """Raised by a task to fail now, without the retries it has left."""


class AirflowSensorTimeout(AirflowException):
    """A sensor has waited longer than its timeout."""


class AirflowRescheduleException(AirflowException):
    """Raised by a sensor that wants to look again later, and be no process until then."""

    def __init__(self, reschedule_date, *, reschedule_timezone=None):
        super().__init__()
        self.reschedule_date = reschedule_date


class DownstreamTasksSkipped(AirflowException):
    """Raised when a task has decided which of those below it are not to run."""

    def __init__(self, *, tasks):
        super().__init__()
        self.tasks = tasks


class ParamValidationError(AirflowException):
    """A param's value is not what its schema allows."""


class AirflowTimetableInvalid(AirflowException):
    """A schedule that cannot be."""


class AirflowOptionalProviderFeatureException(AirflowException):
    """Something of a provider package that is not installed."""


class TaskNotFound(AirflowException):
    """A DAG has no task of that id."""


class DagNotFound(AirflowException):
    """There is no DAG of that id."""


class DagRunAlreadyExists(AirflowException):
    """The DAG has a run of that id, or of that date."""


class ExternalTaskNotFoundError(AirflowException):
    """What an ExternalTaskSensor waits for is not there."""


class ExternalDagNotFoundError(ExternalTaskNotFoundError):
    """Nor is its DAG."""


class ExternalTaskFailedError(AirflowException):
    """What an ExternalTaskSensor waits for has failed."""


class ExternalTaskGroupNotFoundError(ExternalTaskNotFoundError):
    """Nor is its group."""


class UnmappableXComTypePushed(AirflowException):
    """A task that others are mapped over returned neither a list nor a dict."""


class UnmappableXComLengthPushed(AirflowException):
    """A task that others are mapped over returned more than `max_map_length` elements."""


class TaskDeferred(BaseException):
    """Lets the process of a task go until a trigger fires; then `method_name` of its operator is called."""

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
    """The trigger of a deferred task has failed."""


class TaskDeferralTimeout(AirflowException):
    """The trigger of a deferred task has taken too long."""


class AirflowTaskTimeout(BaseException):
    """Raised in a task whose execution_timeout is over."""


class AirflowTaskTerminated(BaseException):
    """Raised in a task that was told to end."""


class AirflowRuntimeError(Exception):
    """A Variable or Connection that is not there."""


class AirflowNotFoundException(AirflowException):
    """Something that was asked for by name is not there."""


class DuplicateTaskIdFound(AirflowException):
    """Two tasks of a DAG have one id."""


class TaskAlreadyInTaskGroup(AirflowException):
    """A task was put into a second group."""

    def __init__(self, task_id, has, new):
        super().__init__(f"cannot add {task_id!r} to {new!r} (already in {has!r})")


class AirflowDagCycleException(AirflowException):
    """The tasks of a DAG wait for each other in a circle."""


class MissingPackage(ImportError):
    """A package that DAG files expect, and that is not installed."""

    def __init__(self, name, use):
        super().__init__(
            f"{use} needs the Python package {name}, which is not installed. "
            "`leoflow setup` fetches it; offline, install it with pip for the Python that runs the DAGs.",
            name=name,
        )


class XComNotFound(AirflowException):
    """A task's argument names an XCom that nobody has pushed."""


class Unsupported(AirflowException, ImportError):
    """Airflow has it, Leoflow does not: said with the place, never passed over in silence.

    An ImportError too, so that a DAG file that can do without it goes on as it would without the package.
    """

    def __init__(self, thing, place=None, more=""):
        file, line = place or user_line()
        super().__init__(f'{file}:{line}: {thing} is not supported by Leoflow{more}')


def of_airflow(name: str) -> Unsupported:
    """For a name of Airflow's that our own package has not: Airflow's own SDK may have it, and this line brings that."""
    package = provider_package(name.removeprefix("the module ")) or "apache-airflow"
    more = f"'s own small Airflow package. Apache Airflow's own SDK has it: {how_to_add(package)}"
    return Unsupported(name, more=more)
