"""Modules, names and arguments that Airflow 3 removed, each with its replacement. Sources: Airflow's release notes, the
tables of deprecated imports in Airflow 2.11 (`airflow_2_names.txt`), and the modules of Airflow 3.3.
<https://airflow.apache.org/docs/apache-airflow/stable/installation/upgrading_to_airflow3.html>"""

from __future__ import annotations

import functools
import os
import re

from leoflow.common.hints.packages import how_to_add, provider_package

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

# Removed modules that Airflow's own tables lack, or whose successors were removed, too. Each line has the old module, the new
# one, and the names, with `=` and the new name for those that changed. A new module that does not start with `airflow.` is
# below `airflow.providers`. `scripts/airflow-2-names` writes such lines to `airflow_2_names.txt`.
MOVED = """
    airflow.contrib.kubernetes.pod cncf.kubernetes.backcompat.pod Port Resources
    airflow.contrib.operators.branch_day_of_week standard.operators.weekday BranchDayOfWeekOperator
    airflow.contrib.operators.dag_day_of_week standard.operators.weekday BranchDayOfWeekOperator
    airflow.datasets airflow.sdk Dataset=Asset DatasetAlias=AssetAlias DatasetAll=AssetAll DatasetAny=AssetAny
    airflow.datasets.metadata airflow.sdk Metadata
    airflow.hooks.base_hook airflow.hooks.base BaseHook
    airflow.hooks.dbapi common.sql.hooks.sql DbApiHook
    airflow.kubernetes.secret cncf.kubernetes.secret Secret
    airflow.models.dataset airflow.models.asset DatasetModel=AssetModel DatasetEvent=AssetEvent
    airflow.operators.branch_operator standard.operators.branch BaseBranchOperator
    airflow.operators.kubernetes_pod_operator cncf.kubernetes.operators.pod KubernetesPodOperator
    airflow.sensors.s3_prefix_sensor amazon.aws.sensors.s3 S3PrefixSensor=S3KeySensor
    airflow.timetables.datasets airflow.timetables.assets DatasetOrTimeSchedule=AssetOrTimeSchedule
    airflow.utils.dag_parsing_context airflow.sdk get_parsing_context
    airflow.utils.log.secrets_masker airflow.sdk.log mask_secret
    airflow.utils.weekday standard.utils.weekday WeekDay
"""
# The same for names whose modules exist in Airflow 3, or in the newest versions of providers.
MOVED_NAMES = """
    airflow airflow.sdk Dataset=Asset
    airflow.models.taskinstance airflow.sdk Context
    airflow.models.xcom airflow.sdk.execution_time.lazy_sequence LazyXComAccess=LazyXComSequence
    airflow.providers.amazon.aws.operators.redshift_sql common.sql.operators.sql RedshiftSQLOperator=SQLExecuteQueryOperator
    airflow.providers.cncf.kubernetes.operators.kubernetes_pod cncf.kubernetes.operators.pod KubernetesPodOperator
    airflow.providers.http.operators.http http.operators.http SimpleHttpOperator=HttpOperator
    airflow.providers.jdbc.operators.jdbc common.sql.operators.sql JdbcOperator=SQLExecuteQueryOperator
    airflow.providers.microsoft.mssql.operators.mssql common.sql.operators.sql MsSqlOperator=SQLExecuteQueryOperator
    airflow.providers.mysql.operators.mysql common.sql.operators.sql MySqlOperator=SQLExecuteQueryOperator
    airflow.providers.oracle.operators.oracle common.sql.operators.sql OracleOperator=SQLExecuteQueryOperator
    airflow.providers.postgres.operators.postgres common.sql.operators.sql PostgresOperator=SQLExecuteQueryOperator
    airflow.providers.snowflake.operators.snowflake common.sql.operators.sql SnowflakeOperator=SQLExecuteQueryOperator
    airflow.providers.sqlite.operators.sqlite common.sql.operators.sql SqliteOperator=SQLExecuteQueryOperator
    airflow.providers.trino.operators.trino common.sql.operators.sql TrinoOperator=SQLExecuteQueryOperator
    airflow.providers.vertica.operators.vertica common.sql.operators.sql VerticaOperator=SQLExecuteQueryOperator
    airflow.utils.db airflow.utils.session create_session provide_session
    airflow.utils.helpers airflow.sdk chain cross_downstream
"""
# Removed modules and names that no single module replaces.
REPLACED = {
    "airflow.contrib": "its operators, hooks and sensors are in provider packages, apache-airflow-providers-…",
    "airflow.models.subdag": "use airflow.sdk.TaskGroup",
    "airflow.operators.subdag": "use airflow.sdk.TaskGroup",
    "airflow.operators.subdag_operator": "use airflow.sdk.TaskGroup",
    "airflow.sensors.smart_sensor": "use deferrable operators",
    "airflow.utils.dates": "dates are made with pendulum or datetime",
    "airflow.utils.dates.days_ago": "use a fixed start_date, or pendulum.today('UTC').add(days=-N)",
    "airflow.utils.decorators.apply_defaults": "remove the decorator; every operator applies default_args",
    "airflow.utils.file.TemporaryDirectory": "use tempfile.TemporaryDirectory",
    "airflow.www": "plugins of the web UI are FastAPI apps or React apps",
}
# Arguments of DAGs and operators.
ARGUMENTS = {
    "schedule_interval": "use `schedule`", "timetable": "use `schedule`", "concurrency": "use `max_active_tasks`",
    "fail_stop": "use `fail_fast`", "default_view": "remove it", "orientation": "remove it",
    "full_filepath": "remove it",
    "provide_context": "remove it; the context is always passed", "task_concurrency": "use `max_active_tis_per_dag`",
    "sla": "it has no SLAs; remove it", "sla_miss_callback": "it has no SLAs; remove it", "xcom_push": "use `do_xcom_push`",
    "use_task_execution_day": "use `use_task_logical_date`", "use_dill": "use `serializer='dill'`", "execution_date": "use `logical_date`",
}
# Methods of DAGs.
METHODS = {"following_schedule": "use `data_interval_end`", "previous_schedule": "use `data_interval_start`"}
# Keys of the context, in templates and in arguments of functions.
CONTEXT = {
    "execution_date": "use `logical_date`", "next_execution_date": "use `data_interval_end`",
    "next_ds": "use `data_interval_end | ds`", "next_ds_nodash": "use `data_interval_end | ds_nodash`",
    "prev_execution_date": "use `prev_data_interval_start_success`",
    "prev_execution_date_success": "use `prev_data_interval_start_success`",
    "prev_ds": "use `prev_data_interval_start_success | ds`",
    "prev_ds_nodash": "use `prev_data_interval_start_success | ds_nodash`",
    "tomorrow_ds": "use `macros.ds_add(ds, 1)`", "yesterday_ds": "use `macros.ds_add(ds, -1)`",
    "tomorrow_ds_nodash": "use `macros.ds_format(macros.ds_add(ds, 1), '%Y-%m-%d', '%Y%m%d')`",
    "yesterday_ds_nodash": "use `macros.ds_format(macros.ds_add(ds, -1), '%Y-%m-%d', '%Y%m%d')`",
    "triggering_dataset_events": "use `triggering_asset_events`",
}


@functools.cache
def moved() -> dict[str, dict[str, str]]:
    """Returns the successors of the names of each module that Airflow 3 removed: dotted names, by old name."""
    # A successor may have one, too.
    return {module: {old: successor_in(moved_names(), new) or new for old, new in names.items()}
            for module, names in read_table(generated() + MOVED).items()}


@functools.cache
def moved_names() -> dict[str, dict[str, str]]:
    """Returns the same for names whose modules still exist."""
    return read_table(MOVED_NAMES)


@functools.cache
def missing() -> set[str]:
    """Returns the successors that the newest releases of their providers lack."""
    return {successor for _, _, successor, is_missing in entries(generated()) if is_missing}


def generated():
    with open(os.path.join(os.path.dirname(__file__), "airflow_2_names.txt"), encoding="utf-8") as file:
        return file.read()


def read_table(text):
    table = {}
    for module, old, successor, _ in entries(text):
        table.setdefault(module, {})[old] = successor
    return table


def entries(text):
    """Yields the old module, the old name, its successor, and whether that is marked with `!`."""
    for module, new_module, *names in map(str.split, filter(str.strip, text.splitlines())):
        new_module = new_module if new_module.startswith("airflow.") else f"airflow.providers.{new_module}"
        for name in names:
            old, _, new = name.removesuffix("!").partition("=")
            yield module, old, f"{new_module}.{new or old}", name.endswith("!")


def removed_name(name: str, advice: Callable[[str], str] | None = how_to_add) -> str | None:
    """Returns a sentence with the replacement of a removed module, or of a removed name in a module; None for any other
    name. `advice` returns how to add a package."""
    if successor := successor_of(name):
        return sentence(name, [successor], advice)
    parts = name.split(".")
    # A name below a removed module, such as one of its classes, is removed, too.
    for length in range(len(parts), 1, -1):
        part = ".".join(parts[:length])
        if part in moved():
            return sentence(part, list(moved()[part].values()), advice)
        if part in REPLACED:
            return f"{name} was removed in Airflow 3; {REPLACED[part]}"
    return None


def successor_of(name: str) -> str | None:
    """Returns the dotted name that replaces a removed name; None for any other name, and for a module."""
    return successor_in(moved(), name) or successor_in(moved_names(), name)


def successor_in(table, name):
    module, _, last = name.rpartition(".")
    return table.get(module, {}).get(last)


def sentence(name, successors, advice):
    """`successors` are those of the names of a module, or the one of a single name."""
    modules = dict.fromkeys(successor.rpartition(".")[0] for successor in successors)
    shown = successors if len(set(successors)) == 1 else modules
    return f"{name} was removed in Airflow 3; use {' or '.join(dict.fromkeys(shown))}{how_to_get(next(iter(modules)), advice)}"


def removed_import(names: list[str], advice: Callable[[str], str] | None = how_to_add) -> str | None:
    """Returns the replacements of the removed names in an import, or else of its module. `names` are the module and
    then the imported names, with the module."""
    module, *others = names
    named = [name for name in others if name in REPLACED or is_moved(name)]
    found = dict.fromkeys(removed_name(name, advice) for name in named)
    if len(named) < len(others) and (rest := removed_name(module, advice)):
        found[rest] = None
    return "\n".join(found) or removed_name(module, advice)


def is_moved(name: str) -> bool:
    """True for a removed module or name with a known successor."""
    return name in moved() or successor_of(name) is not None


def how_to_get(module, advice):
    """Returns a text that explains how to add the provider of a module; empty for a module without a provider."""
    provider = provider_package(module)
    return f" of {provider}{f': {advice(provider)}' if advice else ''}" if provider else ""


def removed_argument(message: str) -> str | None:
    """Returns the replacements of the unknown arguments in the message of a TypeError about a DAG or an operator."""
    if re.match(r"(DAG|\w*Operator|\w*Sensor)\b\S* got (an )?unexpected keyword argument", message):
        names = re.findall(r"'(\w+)'", message)
    elif message.startswith("Invalid arguments were passed to "):
        names = re.findall(r"'(\w+)': ", message.partition("**kwargs: ")[2])
    else:
        return None
    return sentences("argument", names, ARGUMENTS)


def removed_context_key(error: BaseException) -> str | None:
    """Returns the replacement of a removed context key that an error is about."""
    message = str(error)
    if isinstance(error, KeyError):
        names = error.args[:1]
    elif type(error).__name__ == "UndefinedError" or "required positional argument" in message:
        names = re.findall(r"'(\w+)'", message)
    else:
        return None
    return sentences("context key", names, CONTEXT)


def sentences(kind, names, table):
    lines = [f"Airflow 3 has no {kind} `{name}`; {table[name]}" for name in names if name in table]
    return "\n".join(lines) or None
