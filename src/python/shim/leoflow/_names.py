"""Which name is in which of Airflow's modules, and where it is here. docs/airflow-compatibility.md is
made from this."""

import importlib
import sys

from ._errors import Unsupported

SDK = {
    "Asset": "_assets", "AssetAlias": "_assets", "AssetAll": "_assets", "AssetAny": "_assets",
    "AssetOrTimeSchedule": "_timetables", "AssetWatcher": "_assets", "BaseBranchOperator": "_branching",
    "BaseHook": "_hooks", "BaseNotifier": "_hooks", "BaseOperator": "_base", "BaseSensorOperator": "_sensors",
    "BranchMixIn": "_branching", "Connection": "_stores", "Context": "_context",
    "CronDataIntervalTimetable": "_timetables", "CronTriggerTimetable": "_timetables", "DAG": "_dag",
    "DagRunState": "_rules", "DeltaDataIntervalTimetable": "_timetables", "DeltaTriggerTimetable": "_timetables",
    "EdgeModifier": "_graph", "EventsTimetable": "_timetables", "Label": "_graph", "Metadata": "_assets",
    "MultipleCronTriggerTimetable": "_timetables", "Param": "_params", "ParamsDict": "_params",
    "PokeReturnValue": "_sensors", "SkipMixin": "_branching", "TaskGroup": "_groups", "TaskInstance": "_context",
    "TaskInstanceState": "_rules", "TriggerRule": "_rules", "Variable": "_stores", "WeightRule": "_priority",
    "XComArg": "_xcomarg", "asset": "_assets", "chain": "_graph", "chain_linear": "_graph",
    "cross_downstream": "_graph", "dag": "_dag", "get_current_context": "_context", "get_parsing_context": "_parsing",
    "literal": "_templates", "macros": "_macros:", "setup": "_taskflow", "task": "_taskflow",
    "task_group": "_groups", "teardown": "_taskflow", "timezone": "_timezone:",
}

EXCEPTIONS = dict.fromkeys(
    """
    AirflowDagCycleException AirflowException AirflowFailException AirflowNotFoundException
    AirflowOptionalProviderFeatureException AirflowRescheduleException AirflowRuntimeError AirflowSensorTimeout
    AirflowSkipException AirflowTaskTerminated AirflowTaskTimeout AirflowTimetableInvalid DagNotFound
    DagRunAlreadyExists DownstreamTasksSkipped DuplicateTaskIdFound ParamValidationError TaskAlreadyInTaskGroup
    TaskNotFound UnmappableXComLengthPushed UnmappableXComTypePushed XComNotFound
    """.split(),
    "_errors",
)

MACROS = dict.fromkeys(
    "datetime dateutil datetime_diff_for_humans ds_add ds_format ds_format_locale json random time timedelta uuid yaml".split(),
    "_macros",
)

BASH = {"BashOperator": "_operators"}
BRANCH = {"BaseBranchOperator": "_branching", "BranchMixIn": "_branching"}
BRANCH_DATE = {"BranchDateTimeOperator": "_branching"}
BRANCH_DAY = {"BranchDayOfWeekOperator": "_branching"}
EMPTY = {"EmptyOperator": "_operators"}
LATEST = {"LatestOnlyOperator": "_branching"}
PYTHON = {"BranchPythonOperator": "_branching", "PythonOperator": "_operators", "ShortCircuitOperator": "_branching",
          "get_current_context": "_context"}
TRIGGER = {"TriggerDagRunOperator": "_triggering"}
SENSOR_BASE = {"BaseSensorOperator": "_sensors", "PokeReturnValue": "_sensors", "poke_mode_only": "_sensors"}
BASH_SENSOR = {"BashSensor": "_sensors"}
DATE_SENSOR = {"DateTimeSensor": "_sensors", "DateTimeSensorAsync": "_deferred"}
EXTERNAL = {"ExternalTaskMarker": "_triggering", "ExternalTaskSensor": "_triggering"}
FILE_SENSOR = {"FileSensor": "_sensors"}
PYTHON_SENSOR = {"PythonSensor": "_sensors"}
TIME_SENSOR = {"TimeSensor": "_sensors", "TimeSensorAsync": "_deferred"}
DELTA_SENSOR = {"TimeDeltaSensor": "_sensors", "TimeDeltaSensorAsync": "_deferred"}
DAY_SENSOR = {"DayOfWeekSensor": "_sensors"}
HOOK = {"BaseHook": "_hooks"}
FILE_HOOK = {"FSHook": "_hooks"}
STATES = {"DagRunState": "_rules", "State": "_rules", "TaskInstanceState": "_rules"}
TIMETABLES = dict.fromkeys(("DagRunInfo", "DataInterval", "TimeRestriction", "Timetable"), "_timetables")

TIMEZONE = dict.fromkeys(
    ("convert_to_utc", "coerce_datetime", "datetime", "make_naive", "parse", "utc", "utcnow"), "_timezone")

# What providers and Airflow's own examples import, whichever Airflow they run on.
COMPAT = {
    **{name: place for name, place in SDK.items() if name != "timezone"}, **EXCEPTIONS, **HOOK,
    "AirflowPlugin": "_plugins", "BaseNotifier": "_hooks", "MappedOperator": "_mapping", "SkipMixin": "_branching",
    "XCOM_RETURN_KEY": "_types", "determine_kwargs": "_operators", "mask_secret": "_stores", "poke_mode_only": "_sensors",
    "timezone": "_timezone:",
}

MODULES = {
    "airflow": {"Asset": "_assets", "AirflowException": "_errors", "DAG": "_dag", "Dataset": "_assets",
                "XComArg": "_xcomarg"},
    "airflow.decorators": {"dag": "_dag", "setup": "_taskflow", "task": "_taskflow", "task_group": "_groups",
                           "teardown": "_taskflow"},
    "airflow.exceptions": EXCEPTIONS,
    "airflow.hooks": {},
    "airflow.hooks.base": HOOK,
    "airflow.hooks.filesystem": FILE_HOOK,
    "airflow.macros": MACROS,
    "airflow.models": {"BaseOperator": "_base", "Connection": "_stores", "DAG": "_dag", "DagRun": "_context",
                       "MappedOperator": "_mapping", "Param": "_params", "SkipMixin": "_branching",
                       "TaskInstance": "_context", "Variable": "_stores"},
    "airflow.models.baseoperator": {"BaseOperator": "_base", "chain": "_graph", "chain_linear": "_graph",
                                    "cross_downstream": "_graph"},
    "airflow.models.connection": {"Connection": "_stores"},
    "airflow.models.dag": {"DAG": "_dag", "dag": "_dag"},
    "airflow.models.param": {"Param": "_params", "ParamsDict": "_params"},
    "airflow.models.skipmixin": {"SkipMixin": "_branching"},
    "airflow.models.taskinstance": {"TaskInstance": "_context"},
    "airflow.models.variable": {"Variable": "_stores"},
    "airflow.models.xcom_arg": {"XComArg": "_xcomarg"},
    "airflow.notifications": {},
    "airflow.notifications.basenotifier": {"BaseNotifier": "_hooks"},
    "airflow.operators": {},
    "airflow.operators.bash": BASH,
    "airflow.operators.branch": BRANCH,
    "airflow.operators.datetime": BRANCH_DATE,
    "airflow.operators.empty": EMPTY,
    "airflow.operators.latest_only": LATEST,
    "airflow.operators.python": PYTHON,
    "airflow.operators.trigger_dagrun": TRIGGER,
    "airflow.operators.weekday": BRANCH_DAY,
    "airflow.providers": {},
    "airflow.providers.common": {},
    "airflow.providers.common.compat": {},
    "airflow.providers.common.compat.sdk": COMPAT,
    "airflow.providers.standard": {},
    "airflow.providers.standard.hooks": {},
    "airflow.providers.standard.hooks.filesystem": FILE_HOOK,
    "airflow.providers.standard.operators": {},
    "airflow.providers.standard.operators.bash": BASH,
    "airflow.providers.standard.operators.branch": BRANCH,
    "airflow.providers.standard.operators.datetime": BRANCH_DATE,
    "airflow.providers.standard.operators.empty": EMPTY,
    "airflow.providers.standard.operators.latest_only": LATEST,
    "airflow.providers.standard.operators.python": PYTHON,
    "airflow.providers.standard.operators.trigger_dagrun": TRIGGER,
    "airflow.providers.standard.operators.weekday": BRANCH_DAY,
    "airflow.providers.standard.sensors": {},
    "airflow.providers.standard.sensors.bash": BASH_SENSOR,
    "airflow.providers.standard.sensors.date_time": DATE_SENSOR,
    "airflow.providers.standard.sensors.external_task": EXTERNAL,
    "airflow.providers.standard.sensors.filesystem": FILE_SENSOR,
    "airflow.providers.standard.sensors.python": PYTHON_SENSOR,
    "airflow.providers.standard.sensors.time": TIME_SENSOR,
    "airflow.providers.standard.sensors.time_delta": DELTA_SENSOR,
    "airflow.providers.standard.sensors.weekday": DAY_SENSOR,
    "airflow.providers.standard.utils": {},
    "airflow.providers.standard.utils.skipmixin": {"SkipMixin": "_branching"},
    "airflow.providers.standard.utils.weekday": {"WeekDay": "_branching"},
    "airflow.plugins_manager": {"AirflowPlugin": "_plugins"},
    "airflow.sdk": SDK,
    "airflow.sdk.bases": {},
    "airflow.sdk.bases.hook": HOOK,
    "airflow.sdk.bases.notifier": {"BaseNotifier": "_hooks"},
    "airflow.sdk.bases.operator": {"BaseOperator": "_base", "chain": "_graph", "chain_linear": "_graph",
                                   "cross_downstream": "_graph"},
    "airflow.sdk.bases.sensor": SENSOR_BASE,
    "airflow.sdk.definitions": {},
    "airflow.sdk.definitions.asset": {name: "_assets" for name in (
        "Asset", "AssetAlias", "AssetAll", "AssetAny", "Dataset", "Model")},
    "airflow.sdk.definitions.asset.metadata": {"Metadata": "_assets"},
    "airflow.sdk.definitions.context": {"Context": "_context", "get_current_context": "_context",
                                        "get_parsing_context": "_parsing"},
    "airflow.sdk.definitions.decorators": {"setup": "_taskflow", "task": "_taskflow", "task_group": "_groups",
                                           "teardown": "_taskflow"},
    "airflow.sdk.definitions.edges": {"EdgeModifier": "_graph", "Label": "_graph"},
    "airflow.sdk.definitions.param": {"Param": "_params", "ParamsDict": "_params"},
    "airflow.sdk.definitions.taskgroup": {"TaskGroup": "_groups"},
    "airflow.sdk.definitions.connection": {"Connection": "_stores"},
    "airflow.sdk.definitions.dag": {"DAG": "_dag", "dag": "_dag"},
    "airflow.sdk.definitions.variable": {"Variable": "_stores"},
    "airflow.sdk.definitions.xcom_arg": {"XComArg": "_xcomarg"},
    "airflow.sdk.exceptions": EXCEPTIONS,
    "airflow.sdk.log": {"mask_secret": "_stores"},
    "airflow.sdk.timezone": TIMEZONE,
    "airflow.task": {},
    "airflow.task.trigger_rule": {"TriggerRule": "_rules"},
    "airflow.sensors": {},
    "airflow.sensors.base": SENSOR_BASE,
    "airflow.sensors.bash": BASH_SENSOR,
    "airflow.sensors.date_time": DATE_SENSOR,
    "airflow.sensors.external_task": EXTERNAL,
    "airflow.sensors.filesystem": FILE_SENSOR,
    "airflow.sensors.python": PYTHON_SENSOR,
    "airflow.sensors.time_delta": DELTA_SENSOR,
    "airflow.sensors.time_sensor": TIME_SENSOR,
    "airflow.sensors.weekday": DAY_SENSOR,
    "airflow.timetables": {},
    "airflow.timetables.assets": {"AssetOrTimeSchedule": "_timetables"},
    "airflow.timetables.base": TIMETABLES,
    "airflow.timetables.events": {"EventsTimetable": "_timetables"},
    "airflow.timetables.interval": {"CronDataIntervalTimetable": "_timetables",
                                    "DeltaDataIntervalTimetable": "_timetables"},
    "airflow.timetables.simple": dict.fromkeys(
        ("AssetTriggeredTimetable", "ContinuousTimetable", "NullTimetable", "OnceTimetable"), "_timetables"),
    "airflow.timetables.trigger": {"CronTriggerTimetable": "_timetables", "DeltaTriggerTimetable": "_timetables",
                                   "MultipleCronTriggerTimetable": "_timetables"},
    "airflow.utils": {},
    "airflow.utils.context": {"Context": "_context"},
    "airflow.utils.edgemodifier": {"Label": "_graph"},
    "airflow.utils.operator_helpers": {"determine_kwargs": "_operators"},
    "airflow.utils.state": STATES,
    "airflow.utils.task_group": {"TaskGroup": "_groups"},
    "airflow.utils.log": {},
    "airflow.utils.log.secrets_masker": {"mask_secret": "_stores"},
    "airflow.utils.log.logging_mixin": {"LoggingMixin": "_hooks"},
    "airflow.utils.timezone": TIMEZONE,
    "airflow.utils.trigger_rule": {"TriggerRule": "_rules"},
    "airflow.utils.types": dict.fromkeys(("DagRunType", "NOTSET"), "_types"),
    "airflow.utils.weight_rule": {"WeightRule": "_priority"},
    "airflow.utils.xcom": {"XCOM_RETURN_KEY": "_types"},
}


def look_up(module, like=None):
    """A module's `__getattr__`: what Airflow has there and Leoflow does not is said with its place."""
    names = MODULES[like or module]

    def missing(name):
        place = names.get(name)
        if place is None:
            if name.startswith("_") or (like is None and f"{module}.{name}" in MODULES):
                raise AttributeError(f"module {module!r} has no attribute {name!r}")
            raise Unsupported(f"{module}.{name}")
        found = importlib.import_module(f"leoflow.{place.rstrip(':')}")
        value = found if place.endswith(":") else getattr(found, name)
        setattr(sys.modules[module], name, value)
        return value

    return missing
