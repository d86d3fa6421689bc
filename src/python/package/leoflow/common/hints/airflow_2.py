"""Modules, names and arguments that Airflow 3 removed, each with its replacement. Sources: Airflow's release notes, the
tables of deprecated imports in Airflow 2.11, and the modules of Airflow 3.3.
<https://airflow.apache.org/docs/apache-airflow/stable/installation/upgrading_to_airflow3.html>"""

from __future__ import annotations

import re

from leoflow.common.hints.packages import how_to_add, provider_package

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

# One replacement per line, then the removed modules below `airflow`. A replacement that does not start with `airflow.`
# is below `airflow.providers`.
MOVED = """
    airflow.sdk (Asset, formerly Dataset): datasets datasets.metadata datasets.manager models.dataset
    airflow.sdk (AssetOrTimeSchedule): timetables.datasets
    airflow.sdk (BaseHook): hooks.base_hook
    airflow.sdk (BaseSensorOperator): sensors.base_sensor_operator
    airflow.sdk (TaskGroup): operators.subdag operators.subdag_operator models.subdag subdag
    airflow.sdk (get_parsing_context): utils.dag_parsing_context
    airflow.sdk.log (mask_secret): utils.log.secrets_masker
    standard.hooks.filesystem: contrib.hooks.fs_hook
    standard.operators.bash: operators.bash_operator
    standard.operators.branch: operators.branch_operator
    standard.operators.empty (EmptyOperator): operators.dummy operators.dummy_operator
    standard.operators.latest_only: operators.latest_only_operator
    standard.operators.python: operators.python_operator
    standard.operators.trigger_dagrun: operators.dagrun_operator
    standard.operators.weekday: contrib.operators.dag_day_of_week contrib.operators.branch_day_of_week
    standard.sensors.bash: contrib.sensors.bash_sensor
    standard.sensors.date_time: sensors.date_time_sensor
    standard.sensors.external_task: sensors.external_task_sensor
    standard.sensors.filesystem: contrib.sensors.file_sensor
    standard.sensors.python: contrib.sensors.python_sensor
    standard.sensors.time_delta: sensors.time_delta_sensor
    standard.sensors.weekday: contrib.sensors.weekday_sensor
    standard.utils.weekday: utils.weekday contrib.utils.weekday
    celery.executors.celery_executor: executors.celery_executor
    cncf.kubernetes.executors.kubernetes_executor: executors.kubernetes_executor
    cncf.kubernetes.operators.pod: contrib.operators.kubernetes_pod_operator operators.kubernetes_pod_operator
    cncf.kubernetes.secret: kubernetes.secret
    cncf.kubernetes: kubernetes contrib.kubernetes
    common.sql.hooks.sql (DbApiHook): hooks.dbapi hooks.dbapi_hook
    common.sql.operators.sql: operators.sql operators.check_operator operators.sql_branch_operator
    common.sql.operators.sql (SQLExecuteQueryOperator): operators.jdbc_operator operators.mssql_operator operators.mysql_operator
    common.sql.operators.sql (SQLExecuteQueryOperator): operators.oracle_operator operators.postgres_operator operators.sqlite_operator
    common.sql.operators.sql (SQLExecuteQueryOperator): contrib.operators.snowflake_operator contrib.operators.vertica_operator
    common.sql.sensors.sql: sensors.sql sensors.sql_sensor
    apache.druid.hooks.druid: hooks.druid_hook
    apache.hdfs.hooks.webhdfs: hooks.webhdfs_hook
    apache.hdfs.sensors.web_hdfs: sensors.web_hdfs_sensor
    apache.hive.hooks.hive: hooks.hive_hooks
    apache.hive.macros.hive: macros.hive
    apache.hive.operators.hive: operators.hive_operator
    apache.hive.sensors.hive_partition: sensors.hive_partition_sensor
    apache.hive.sensors.metastore_partition: sensors.metastore_partition_sensor
    apache.hive.sensors.named_hive_partition: sensors.named_hive_partition_sensor
    amazon.aws.hooks.s3: hooks.S3_hook
    amazon.aws.operators.s3: operators.s3_file_transform_operator
    amazon.aws.sensors.s3: sensors.s3_key_sensor sensors.s3_prefix_sensor
    amazon.aws.transfers.redshift_to_s3: operators.redshift_to_s3_operator
    amazon.aws.transfers.s3_to_redshift: operators.s3_to_redshift_operator
    docker.hooks.docker: hooks.docker_hook
    docker.operators.docker: operators.docker_operator
    google.cloud: contrib.gcp
    http.hooks.http: hooks.http_hook
    http.operators.http (HttpOperator): operators.http_operator
    http.sensors.http: sensors.http_sensor
    jdbc.hooks.jdbc: hooks.jdbc_hook
    microsoft.mssql.hooks.mssql: hooks.mssql_hook
    mysql.hooks.mysql: hooks.mysql_hook
    oracle.hooks.oracle: hooks.oracle_hook
    papermill.operators.papermill: operators.papermill_operator
    postgres.hooks.postgres: hooks.postgres_hook
    presto.hooks.presto: hooks.presto_hook
    samba.hooks.samba: hooks.samba_hook
    sftp.hooks.sftp: contrib.hooks.sftp_hook
    sftp.operators.sftp: contrib.operators.sftp_operator
    sftp.sensors.sftp: contrib.sensors.sftp_sensor
    slack.hooks.slack: hooks.slack_hook
    slack.operators.slack: operators.slack_operator
    smtp.operators.smtp: operators.email_operator
    sqlite.hooks.sqlite: hooks.sqlite_hook
    ssh.hooks.ssh: contrib.hooks.ssh_hook
    ssh.operators.ssh: contrib.operators.ssh_operator
    zendesk.hooks.zendesk: hooks.zendesk_hook
"""
# Removed modules and names that no single module replaces.
REPLACED = {
    "airflow.contrib": "its operators, hooks and sensors are in provider packages, apache-airflow-providers-…",
    "airflow.sensors.smart_sensor": "use deferrable operators",
    "airflow.utils.dates": "dates are made with pendulum or datetime",
    "airflow.utils.dates.days_ago": "use a fixed start_date, or pendulum.today('UTC').add(days=-N)",
    "airflow.utils.decorators.apply_defaults": "remove the decorator; every operator applies default_args",
    "airflow.utils.file.TemporaryDirectory": "use tempfile.TemporaryDirectory",
    "airflow.utils.helpers.chain": "use airflow.sdk.chain",
    "airflow.utils.helpers.cross_downstream": "use airflow.sdk.cross_downstream",
    "airflow.www": "plugins of the web UI are FastAPI apps or React apps",
}
# Arguments of DAGs and operators.
ARGUMENTS = {
    "schedule_interval": "use `schedule`", "timetable": "use `schedule`", "concurrency": "use `max_active_tasks`",
    "fail_stop": "use `fail_fast`", "default_view": "remove it", "orientation": "remove it",
    "full_filepath": "remove it",
    "provide_context": "remove it; the context is always passed", "task_concurrency": "use `max_active_tis_per_dag`",
    "use_dill": "use `serializer='dill'`", "execution_date": "use `logical_date`",
}
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
# Words in the names of `airflow.contrib` modules, each with the provider of the successors.
CONTRIB = {
    "aws": "amazon", "s3": "amazon", "emr": "amazon", "ecs": "amazon", "redshift": "amazon", "sagemaker": "amazon",
    "sns": "amazon", "sqs": "amazon", "gcp": "google", "gcs": "google", "bigquery": "google", "bq": "google",
    "dataflow": "google", "dataproc": "google", "mlengine": "google", "pubsub": "google", "azure": "microsoft-azure",
    "wasb": "microsoft-azure", "adls": "microsoft-azure", "databricks": "databricks", "snowflake": "snowflake",
    "spark": "apache-spark", "livy": "apache-livy", "cassandra": "apache-cassandra",
    "mongo": "mongo", "redis": "redis", "ftp": "ftp", "ssh": "ssh", "sftp": "sftp", "slack": "slack", "jira": "atlassian-jira",
    "jenkins": "jenkins", "vertica": "vertica", "winrm": "microsoft-winrm", "salesforce": "salesforce", "discord": "discord",
    "dingding": "dingding", "opsgenie": "opsgenie", "segment": "segment", "druid": "apache-druid",
    "imap": "imap", "pinot": "apache-pinot", "openfaas": "openfaas", "datadog": "datadog", "grpc": "grpc",
}


def replacements() -> dict[str, str]:
    """Returns the replacement of each removed module, by the module's full name."""
    table = {}
    for line in MOVED.strip().splitlines():
        new, _, old = line.strip().partition(": ")
        new = new if new.startswith("airflow.") else f"airflow.providers.{new}"
        table.update((f"airflow.{name}", new) for name in old.split())
    return table


def removed_name(name: str, advice: Callable[[str], str] | None = how_to_add) -> str | None:
    """Returns a sentence with the replacement of a removed module, or of a removed name in a module; None for any other
    name. `advice` returns how to add a package."""
    moved = replacements()
    parts = name.split(".")
    # A name below a removed module, such as one of its classes, is removed, too.
    for length in range(len(parts), 1, -1):
        part = ".".join(parts[:length])
        if part in moved:
            return f"{part} was removed in Airflow 3; use {moved[part]}{how_to_get(moved[part], advice)}"
        if part in REPLACED:
            return f"{name} was removed in Airflow 3; {contrib_provider(name, advice) or REPLACED[part]}"
    return None


def removed_import(names: list[str], advice: Callable[[str], str] | None = how_to_add) -> str | None:
    """Returns the replacements of the removed names in an import, or else of its module. `names` are the module and
    then the imported names, with the module."""
    module, *others = names
    found = [removed_name(name, advice) for name in others if name in REPLACED]
    return "\n".join(found) or removed_name(module, advice)


def how_to_get(module, advice):
    """Returns a text that explains how to add the provider of a module; empty for a module without a provider."""
    provider = provider_package(module.partition(" ")[0])
    return f" of {provider}{advised(provider, advice)}" if provider else ""


def advised(package, advice):
    return f": {advice(package)}" if advice else ""


def contrib_provider(name, advice):
    if not name.startswith("airflow.contrib."):
        return None
    words = re.split(r"[._]", name)
    provider = next((CONTRIB[word] for word in words if word in CONTRIB), None)
    package = f"apache-airflow-providers-{provider}"
    return f"its successor is in {package}{advised(package, advice)}" if provider else None


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
