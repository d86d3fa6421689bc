"""Names of Airflow 2 that no name of Airflow 3 replaces unchanged."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

# Full names of the replacements below, except SQL operators.
NAMES = (
    "airflow.utils.dates.datetime", "airflow.utils.dates.days_ago", "airflow.utils.dates.timedelta",
    "airflow.utils.decorators.apply_defaults", "airflow.utils.file.TemporaryDirectory",
)
# The operators that SQLExecuteQueryOperator replaces, each with its argument for the connection, and the provider that has
# the hook.
SQL_OPERATORS = {
    "JdbcOperator": ("jdbc_conn_id", "airflow.providers.jdbc"),
    "MsSqlOperator": ("mssql_conn_id", "airflow.providers.microsoft.mssql"),
    "MySqlOperator": ("mysql_conn_id", "airflow.providers.mysql"),
    "OracleOperator": ("oracle_conn_id", "airflow.providers.oracle"),
    "PostgresOperator": ("postgres_conn_id", "airflow.providers.postgres"),
    "RedshiftSQLOperator": ("redshift_conn_id", "airflow.providers.amazon"),
    "SnowflakeOperator": ("snowflake_conn_id", "airflow.providers.snowflake"),
    "SqliteOperator": ("sqlite_conn_id", "airflow.providers.sqlite"),
    "TrinoOperator": ("trino_conn_id", "airflow.providers.trino"),
    "VerticaOperator": ("vertica_conn_id", "airflow.providers.vertica"),
}
# Arguments of SnowflakeOperator for its hook.
HOOK_ARGUMENTS = ("warehouse", "role", "schema", "authenticator", "session_parameters")


def days_ago(n: int, hour: int = 0, minute: int = 0, second: int = 0, microsecond: int = 0) -> datetime:
    """Returns midnight of the day `n` days ago in UTC, plus a time of day."""
    time = datetime.now(timezone.utc).replace(hour=hour, minute=minute, second=second, microsecond=microsecond)
    return time - timedelta(days=n)


def apply_defaults(function: Callable[..., Any]) -> Callable[..., Any]:
    """Does nothing, because every operator of Airflow 3 applies `default_args`."""
    return function


def __getattr__(name: str) -> Any:
    if name == "TemporaryDirectory":
        from tempfile import TemporaryDirectory

        return TemporaryDirectory
    if name in SQL_OPERATORS:
        globals()[name] = sql_operator(name, SQL_OPERATORS[name][0])
        return globals()[name]
    raise AttributeError(name)


def sql_operator(name, connection):
    """Returns an operator class whose argument `connection` is the `conn_id` of SQLExecuteQueryOperator."""
    import inspect

    from airflow.providers.common.sql.operators.sql import SQLExecuteQueryOperator

    default = connection.replace("_conn_id", "_default")

    def __init__(self, **kwargs):
        hook_params = {key: kwargs.pop(key) for key in HOOK_ARGUMENTS if kwargs.get(key) is not None}
        # Of PostgresOperator.
        options = kwargs.pop("runtime_parameters", None)
        if options:
            hook_params["options"] = " ".join(f"-c {key}={value}" for key, value in options.items())
        if hook_params:
            kwargs["hook_params"] = {**hook_params, **(kwargs.get("hook_params") or {})}
        SQLExecuteQueryOperator.__init__(self, conn_id=kwargs.pop(connection, default), **kwargs)

    # `default_args` gives arguments that the signature has.
    keyword = inspect.Parameter.KEYWORD_ONLY
    names = (connection, *HOOK_ARGUMENTS) if name == "SnowflakeOperator" else (connection,)
    __init__.__signature__ = inspect.Signature([
        inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD),
        *(inspect.Parameter(key, keyword, default=default if key == connection else None) for key in names),
        inspect.Parameter("kwargs", inspect.Parameter.VAR_KEYWORD),
    ])
    return type(SQLExecuteQueryOperator)(name, (SQLExecuteQueryOperator,), {"__init__": __init__, "__module__": __name__})
