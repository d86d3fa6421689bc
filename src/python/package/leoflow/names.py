"""The supported names of each Airflow module, and the modules of this package that define them.

docs/explanation/airflow-compatibility.md is generated from this table.
"""

from __future__ import annotations

import importlib
import sys

from leoflow.common.exceptions import Replaced, unsupported_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

# The modules of this package, each with the Airflow names that it defines.
NAMES_BY_MODULE = {
    "authoring.assets.decorator": "asset",
    "authoring.assets.definitions": "Asset AssetAlias AssetAll AssetAny AssetWatcher Dataset Metadata Model",
    "authoring.connection": "Connection",
    "authoring.dag.dag": "DAG dag",
    "authoring.dag.edges": "EdgeModifier Label chain chain_linear cross_downstream",
    "authoring.dag.params": "Param ParamsDict",
    "authoring.dag.parsing_context": "get_parsing_context",
    "authoring.dag.task_group": "TaskGroup task_group",
    "authoring.hooks": "BaseHook BaseNotifier FSHook LoggingMixin",
    "authoring.mapping.mapped_operator": "MappedOperator",
    "authoring.mapping.xcom_arg": "XComArg",
    "authoring.operators.base_operator": "BaseOperator",
    "authoring.operators.branching": """
        BaseBranchOperator BranchDateTimeOperator BranchDayOfWeekOperator BranchMixIn BranchPythonOperator
        LatestOnlyOperator ShortCircuitOperator SkipMixin WeekDay
    """,
    "authoring.operators.decorators": "setup task teardown",
    "authoring.operators.links": "BaseOperatorLink ExternalDagLink TriggerDagRunLink",
    "authoring.operators.priority": "WeightRule",
    "authoring.operators.standard": "BashOperator EmptyOperator PythonOperator determine_kwargs",
    "authoring.operators.templates": "literal",
    "authoring.operators.trigger_dag_run": "TriggerDagRunOperator",
    "authoring.operators.trigger_rule": "TriggerRule",
    "authoring.operators.virtualenv_operators": """
        BranchExternalPythonOperator BranchPythonVirtualenvOperator ExternalPythonOperator PythonVirtualenvOperator
    """,
    "authoring.plugins": "AirflowPlugin hookimpl",
    "authoring.run_types": "DagRunType NOTSET XCOM_RETURN_KEY",
    "authoring.sensors.async_sensors": "DateTimeSensorAsync TimeDeltaSensorAsync TimeSensorAsync",
    "authoring.sensors.base": "BaseSensorOperator PokeReturnValue poke_mode_only",
    "authoring.sensors.external_task": "ExternalTaskMarker ExternalTaskSensor",
    "authoring.sensors.standard": "BashSensor FileSensor PythonSensor",
    "authoring.sensors.temporal": "DateTimeSensor DayOfWeekSensor TimeDeltaSensor TimeSensor",
    "authoring.states": "DagRunState State TaskInstanceState",
    "authoring.timetables.assets": "AssetOrTimeSchedule",
    "authoring.timetables.standard": """
        AssetTriggeredTimetable ContinuousTimetable CronDataIntervalTimetable CronTriggerTimetable DagRunInfo
        DataInterval DeltaDataIntervalTimetable DeltaTriggerTimetable
        EventsTimetable MultipleCronTriggerTimetable NullTimetable OnceTimetable TimeRestriction Timetable
    """,
    "authoring.triggers": """
        BaseEventTrigger BaseTrigger DagStateTrigger DateTimeTrigger FileDeleteTrigger FileTrigger StartTriggerArgs
        TaskFailedEvent TaskSkippedEvent TaskSuccessEvent TimeDeltaTrigger TriggerEvent
    """,
    "authoring.variable": "Variable",
    "common.airflow_version": "version",
    "common.current": "get_current_context",
    "common.exceptions": """
        AirflowConfigException AirflowDagCycleException AirflowException AirflowFailException
        AirflowInactiveAssetInInletOrOutletException AirflowNotFoundException
        AirflowOptionalProviderFeatureException AirflowRescheduleException AirflowRuntimeError
        AirflowSensorTimeout AirflowSkipException AirflowTaskTerminated AirflowTaskTimeout
        AirflowTimetableInvalid DagNotFound DagRunAlreadyExists DownstreamTasksSkipped DuplicateTaskIdFound
        ParamValidationError TaskAlreadyInTaskGroup TaskDeferralError TaskDeferralTimeout TaskDeferred TaskNotFound
        UnmappableXComLengthPushed UnmappableXComTypePushed XComNotFound
    """,
    "common.masking": "mask_secret",
    "common.settings.configuration": "AIRFLOW_HOME DAGS_FOLDER PLUGINS_FOLDER TIMEZONE conf",
    "running.context": "Context",
    "running.state_stores": "NEVER_EXPIRE",
    "running.task_instance": "DagRun TaskInstance",
}
MODULE_OF_NAME = {name: target for target, names in NAMES_BY_MODULE.items() for name in names.split()}
# Names in Airflow that are whole modules of this package.
WHOLE_MODULES = {"macros": "authoring.macros", "timezone": "authoring.timezone"}


def named(names: str) -> dict[str, str]:
    """Returns the module that defines each name. A colon at its end means that the name refers to the module itself."""
    return {name: f"{WHOLE_MODULES[name]}:" if name in WHOLE_MODULES else MODULE_OF_NAME[name] for name in names.split()}


SDK = named("""
    Asset AssetAlias AssetAll AssetAny AssetOrTimeSchedule AssetWatcher BaseBranchOperator BaseHook BaseNotifier
    BaseOperator BaseOperatorLink BaseSensorOperator BranchMixIn Connection Context CronDataIntervalTimetable
    CronTriggerTimetable DAG DagRunState DeltaDataIntervalTimetable DeltaTriggerTimetable EdgeModifier
    EventsTimetable Label Metadata MultipleCronTriggerTimetable Param ParamsDict PokeReturnValue SkipMixin
    TaskGroup TaskInstance TaskInstanceState TriggerRule Variable WeightRule XComArg asset chain chain_linear
    conf cross_downstream dag get_current_context get_parsing_context literal macros setup task task_group teardown
    timezone
""")
# The names and modules in Airflow 3.3's `airflow.sdk` that the small package lacks; other unknown names are misspelt.
ONLY_IN_AIRFLOW = frozenset("""
    AllowedKeyMapper AssetAccessControl AsyncCallback BaseAsyncOperator BaseDeadlineReference BaseXCom
    ChainMapper CronPartitionTimetable DayWindow DeadlineAlert DeadlineReference ExceptionRetryPolicy FanOutMapper
    FixedKeyMapper HourWindow IdentityMapper MinimumCount MonthWindow NEVER_EXPIRE ObjectStoragePath PartitionMapper
    PartitionedAssetTimetable PartitionedAtRuntime ProductMapper QuarterWindow ResumableJobMixin RetryAction RetryDecision
    RetryPolicy RetryRule RollupMapper SegmentWindow StartOfDayMapper StartOfHourMapper StartOfMonthMapper
    StartOfQuarterMapper StartOfWeekMapper StartOfYearMapper SyncCallback WaitForAll WeekWindow Window YearWindow
    deadline_reference lineage result
    api bases coordinators crypto definitions exceptions execution_time io listener log module_loading
    observability plugins_manager providers_manager_runtime serde state types yaml
""".split())
EXCEPTIONS = named(NAMES_BY_MODULE["common.exceptions"])
BASH = named("BashOperator")
BRANCH = named("BaseBranchOperator BranchMixIn")
BRANCH_DATE = named("BranchDateTimeOperator")
BRANCH_DAY = named("BranchDayOfWeekOperator")
EMPTY = named("EmptyOperator")
LATEST = named("LatestOnlyOperator")
PYTHON = named("""
    BranchExternalPythonOperator BranchPythonOperator BranchPythonVirtualenvOperator ExternalPythonOperator PythonOperator
    PythonVirtualenvOperator ShortCircuitOperator get_current_context
""")
TRIGGER = named("TriggerDagRunLink TriggerDagRunOperator")
SENSOR_BASE = named("BaseSensorOperator PokeReturnValue poke_mode_only")
BASH_SENSOR = named("BashSensor")
DATE_SENSOR = named("DateTimeSensor DateTimeSensorAsync")
EXTERNAL = named("ExternalDagLink ExternalTaskMarker ExternalTaskSensor")
FILE_SENSOR = named("FileSensor")
PYTHON_SENSOR = named("PythonSensor")
TIME_SENSOR = named("TimeSensor TimeSensorAsync")
DELTA_SENSOR = named("TimeDeltaSensor TimeDeltaSensorAsync")
DAY_SENSOR = named("DayOfWeekSensor")
HOOK = named("BaseHook")
FILE_HOOK = named("FSHook")
STATES = named("DagRunState State TaskInstanceState")
TIMETABLES = named("DagRunInfo DataInterval TimeRestriction Timetable")
MACROS = dict.fromkeys(
    "datetime dateutil datetime_diff_for_humans ds_add ds_format ds_format_locale json random time timedelta uuid yaml".split(),
    "authoring.macros")
TIMEZONE = dict.fromkeys("convert_to_utc coerce_datetime datetime make_naive parse utc utcnow".split(), "authoring.timezone")
# The compatibility module, which providers and Airflow's examples import.
COMPAT = {**SDK, **EXCEPTIONS, **HOOK, **named("AirflowPlugin MappedOperator XCOM_RETURN_KEY determine_kwargs mask_secret poke_mode_only")}

MODULES = {
    "airflow": named("Asset AirflowException DAG Dataset XComArg"),
    "airflow.configuration": named("AirflowConfigException conf"),
    "airflow.decorators": named("dag setup task task_group teardown"),
    "airflow.exceptions": EXCEPTIONS,
    "airflow.hooks": {},
    "airflow.hooks.base": HOOK,
    "airflow.hooks.filesystem": FILE_HOOK,
    "airflow.listeners": named("hookimpl"),
    "airflow.macros": MACROS,
    "airflow.models": named("BaseOperator BaseOperatorLink Connection DAG DagRun MappedOperator Param SkipMixin TaskInstance Variable"),
    "airflow.models.baseoperator": named("BaseOperator chain chain_linear cross_downstream"),
    "airflow.models.baseoperatorlink": named("BaseOperatorLink"),
    "airflow.models.connection": named("Connection"),
    "airflow.models.dag": named("DAG dag"),
    "airflow.models.param": named("Param ParamsDict"),
    "airflow.models.skipmixin": named("SkipMixin"),
    "airflow.models.taskinstance": named("TaskInstance"),
    "airflow.models.variable": named("Variable"),
    "airflow.models.xcom_arg": named("XComArg"),
    "airflow.notifications": {},
    "airflow.notifications.basenotifier": named("BaseNotifier"),
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
    "airflow.providers.standard.triggers": {},
    "airflow.providers.standard.triggers.external_task": named("DagStateTrigger"),
    "airflow.providers.standard.triggers.file": named("FileDeleteTrigger FileTrigger"),
    "airflow.providers.standard.triggers.temporal": named("DateTimeTrigger TimeDeltaTrigger"),
    "airflow.providers.standard.utils": {},
    "airflow.providers.standard.utils.skipmixin": named("SkipMixin"),
    "airflow.providers.standard.utils.weekday": named("WeekDay"),
    "airflow.plugins_manager": named("AirflowPlugin"),
    "airflow.sdk": SDK,
    "airflow.sdk.bases": {},
    "airflow.sdk.bases.hook": HOOK,
    "airflow.sdk.bases.notifier": named("BaseNotifier"),
    "airflow.sdk.bases.operator": named("BaseOperator chain chain_linear cross_downstream"),
    "airflow.sdk.bases.operatorlink": named("BaseOperatorLink"),
    "airflow.sdk.bases.sensor": SENSOR_BASE,
    "airflow.sdk.configuration": named("conf"),
    "airflow.sdk.definitions": {},
    "airflow.sdk.definitions.asset": named("Asset AssetAlias AssetAll AssetAny Dataset Model"),
    "airflow.sdk.definitions.asset.metadata": named("Metadata"),
    "airflow.sdk.definitions.context": named("Context get_current_context get_parsing_context"),
    "airflow.sdk.definitions.decorators": named("setup task task_group teardown"),
    "airflow.sdk.definitions.edges": named("EdgeModifier Label"),
    "airflow.sdk.definitions.param": named("Param ParamsDict"),
    "airflow.sdk.definitions.taskgroup": named("TaskGroup"),
    "airflow.sdk.definitions.connection": named("Connection"),
    "airflow.sdk.definitions.dag": named("DAG dag"),
    "airflow.sdk.definitions.variable": named("Variable"),
    "airflow.sdk.definitions.xcom_arg": named("XComArg"),
    "airflow.sdk.exceptions": EXCEPTIONS,
    "airflow.sdk.execution_time": {},
    "airflow.sdk.execution_time.context": named("NEVER_EXPIRE"),
    "airflow.sdk.log": named("mask_secret"),
    "airflow.sdk.timezone": TIMEZONE,
    "airflow.settings": named("AIRFLOW_HOME DAGS_FOLDER PLUGINS_FOLDER TIMEZONE"),
    "airflow.task": {},
    "airflow.task.trigger_rule": named("TriggerRule"),
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
    "airflow.timetables.assets": named("AssetOrTimeSchedule"),
    "airflow.timetables.base": TIMETABLES,
    "airflow.timetables.events": named("EventsTimetable"),
    "airflow.timetables.interval": named("CronDataIntervalTimetable DeltaDataIntervalTimetable"),
    "airflow.timetables.simple": named("AssetTriggeredTimetable ContinuousTimetable NullTimetable OnceTimetable"),
    "airflow.timetables.trigger": named("CronTriggerTimetable DeltaTriggerTimetable MultipleCronTriggerTimetable"),
    "airflow.triggers": {},
    "airflow.triggers.base": named(
        "BaseEventTrigger BaseTrigger StartTriggerArgs TaskFailedEvent TaskSkippedEvent TaskSuccessEvent TriggerEvent"),
    "airflow.utils": {},
    "airflow.utils.context": named("Context"),
    "airflow.utils.edgemodifier": named("Label"),
    "airflow.utils.operator_helpers": named("determine_kwargs"),
    "airflow.utils.state": STATES,
    "airflow.utils.task_group": named("TaskGroup"),
    "airflow.utils.log": {},
    "airflow.utils.log.secrets_masker": named("mask_secret"),
    "airflow.utils.log.logging_mixin": named("LoggingMixin"),
    "airflow.utils.timezone": TIMEZONE,
    "airflow.utils.trigger_rule": named("TriggerRule"),
    "airflow.utils.types": named("DagRunType NOTSET"),
    "airflow.utils.weight_rule": named("WeightRule"),
    "airflow.utils.xcom": named("XCOM_RETURN_KEY"),
    "airflow.version": named("version"),
}


def is_misspelt(name: str) -> bool:
    """True for a name below `airflow.sdk` that Airflow does not have either."""
    parts = name.split(".")
    return parts[:2] == ["airflow", "sdk"] and len(parts) > 2 and parts[2] not in ONLY_IN_AIRFLOW


def other_module(name: str) -> str | None:
    """Returns the module in MODULES from which Airflow 3 imports a name, or None."""
    modules = [module for module, names in MODULES.items() if name in names and "compat" not in module]
    return min(modules, key=lambda module: (module != "airflow.sdk", ".standard." not in module, module), default=None)


def make_getattr(module: str, like: str | None = None) -> Callable[[str], Any]:
    """Returns the function `__getattr__` for an Airflow module, which raises Unsupported for names that Leoflow lacks.
    `like` is the Airflow module with the same names, for a module that is not in MODULES."""
    names = MODULES[like or module]

    def get_attribute(name: str) -> Any:
        target = names.get(name)
        if target is None:
            whole = f"{module}.{name}"
            if name.startswith("_") or is_misspelt(whole) or (like is None and whole in MODULES):
                raise AttributeError(f"module {module!r} has no attribute {name!r}")
            elsewhere = other_module(name)
            raise Replaced(f"there is no {whole}; use {elsewhere}.{name}") if elsewhere else unsupported_name(whole)
        defining_module = importlib.import_module(f"leoflow.{target.rstrip(':')}")
        value = defining_module if target.endswith(":") else getattr(defining_module, name)
        setattr(sys.modules[module], name, value)
        return value

    return get_attribute
