"""Calls every command of `af`, Astronomer's command line for Airflow (astro-airflow-mcp).

    python af.py URL USERNAME PASSWORD

A command works if it exits with 0 and prints the expected text. `af` selects the version of the API with `GET
/api/v2/version`. A command of `af` that is missing in COMMANDS is an error. All commands run in this process, one after
another. The exit code is 1 if a command does not work."""

import functools
import os
import sys

import fixtures

RUN = ["shown", "first"]
TRIGGERED = ["shown", "{run}"]
# In the order of the calls: name, arguments, and a text that the output must contain. `{…}` is replaced by a value of
# the server.
COMMANDS = [
    # `af` reports a server with an import error as unhealthy.
    ("health", [], '"overall_status": "unhealthy"'),
    ("dags list", ["--limit", "50", "--order-by", "-dag_id"], '"weekly"'),
    ("dags list", ["--tags", "red", "--only-active", "--not-paused", "--dag-id-pattern", "sho%"], '"shown"'),
    ("dags get", ["shown"], '"is_paused": false'),
    ("dags source", ["shown"], "The DAGs for the tests of API clients."),
    ("dags stats", ["--dag-id", "shown"], '"success"'),
    ("dags pause", ["shown"], '"is_paused": true'), ("dags unpause", ["shown"], '"is_paused": false'),
    ("dags explore", ["shown"], '"group.one"'),
    ("dags warnings", [], '"dag_warnings"'), ("dags errors", [], "broken.py"),
    ("runs list", ["--dag-id", "shown", "--state", "success", "--start-date-gte", "2026-01-01T00:00:00Z", "--limit", "5"], '"first"'),
    ("runs list", [], '"dag_run_id"'),
    ("runs get", RUN, '"success"'),
    ("runs trigger", ["shown", "--conf", '{{"name": "y"}}'], '"dag_run_id"'),
    ("runs trigger-wait", ["shown", "--timeout", "90", "--poll-interval", "0.2"], '"success"'),
    ("runs diagnose", RUN, '"success"'),
    ("runs clear", [*RUN, "--dry-run"], '"group.one"'), ("runs clear", ["shown", "second", "--yes"], '"second"'),
    ("tasks list", ["shown"], '"many"'), ("tasks get", ["shown", "group.one"], '"group.one"'),
    ("tasks instance", [*RUN, "group.one"], '"success"'),
    ("tasks logs", [*RUN, "group.one", "--try", "1"], '"content"'),
    ("tasks logs", [*RUN, "many", "--map-index", "1"], '"content"'),
    ("tasks clear", [*RUN, "group.one,many", "--dry-run", "--all", "--downstream"], '"group.one"'),
    ("tasks clear", [*RUN, "group.one", "--no-dry-run", "--all"], '"group.one"'),
    ("assets list", [], '"made"'), ("assets events", ["--dag-id", "shown", "--task-id", "group.one"], '"made"'),
    ("assets triggers", RUN, '"triggered_by_events"'),
    ("config show", [], '"parallelism"'), ("config version", [], '"version": "{version}"'),
    ("config connections", [], '"there"'), ("config variables", [], '"there"'),
    ("config variable", ["there"], '"there"'), ("config pools", [], '"default_pool"'), ("config pool", ["there"], '"slots": 2'),
    ("config plugins", [], '"plugins"'), ("config providers", [], '"providers"'),
    ("api", ["ls"], "/api/v2/dags"), ("api", ["spec"], '"openapi"'),
    ("api", ["dags", "-F", "limit=1"], '"total_entries"'),
    ("api", ["variables", "-X", "POST", "-F", "key=of_af", "-f", "value=1"], '"of_af"'),
    ("api", ["variables/of_af", "-X", "DELETE"], ""),
    ("instance add", ["here", "--url", "{url}", "--username", "{username}", "--password", "{password}"], "here"),
    ("instance use", ["here"], "here"), ("instance list", [], "here"), ("instance current", [], "here"),
    ("instance show", ["here"], "{url}"), ("instance delete", ["here"], "here"), ("instance reset", ["--force"], ""),
    ("telemetry", ["disable"], '"disabled"'), ("migrate", [], ""),
    ("runs delete", [*TRIGGERED, "--yes"], ""),
]
# Commands that contact servers other than Airflow's.
OTHER_SERVICES = {
    "instance discover", "instance discover astro", "instance discover local",
    "registry providers", "registry modules", "registry parameters", "registry connections",
}


def main(url, username, password, *_):
    from typer import testing

    server = fixtures.Server(url, username, password)
    server.prepare()
    run = server.expect_success("POST", "/api/v2/dags/shown/dagRuns", {"dag_run_id": "for_af", "logical_date": None})["dag_run_id"]
    server.wait_for_run(f"/api/v2/dags/shown/dagRuns/{run}")
    os.environ |= {
        "AIRFLOW_API_URL": url, "AIRFLOW_USERNAME": username, "AIRFLOW_PASSWORD": password, "AF_TELEMETRY_DISABLED": "1",
        "COLUMNS": "200", "NO_COLOR": "1",
    }
    version = server.expect_success("GET", "/api/v2/version")["version"]
    values = {"url": url, "username": username, "password": password, "run": run, "version": version}
    # Typer builds all commands of `af` anew for each call, which takes longer than most calls.
    testing._get_command = functools.cache(testing._get_command)
    wrong = []
    for name, arguments, expected in COMMANDS:
        problem = call(name, [argument.format(**values) for argument in arguments], expected.format(**values))
        if problem:
            wrong.append(f"{name} {' '.join(arguments)}: {problem}")
    unknown = command_names() - {name for name, *_ in COMMANDS} - OTHER_SERVICES
    wrong += [f"{name}: is not in the list of commands" for name in sorted(unknown)]
    return fixtures.report("commands of af", wrong, len(COMMANDS))


def call(name, arguments, expected):
    """Calls a command; returns an error message, or None."""
    from astro_airflow_mcp.cli.main import app
    from typer.testing import CliRunner

    result = CliRunner().invoke(app, [*name.split(), *arguments])
    if result.exit_code:
        return f"{result.exit_code}: {result.output[-600:]} {result.exception!r}"
    return None if expected in result.output else f"does not print {expected}: {result.output[-600:]}"


def command_names():
    """Returns the names of all commands of `af`."""
    from astro_airflow_mcp.cli.main import app
    from typer.main import get_command

    def leaf_commands(command, name):
        inside = getattr(command, "commands", {})
        own = {name} if not inside or command.invoke_without_command else set()
        # Hidden commands are aliases.
        visible = {word: subcommand for word, subcommand in inside.items() if not subcommand.hidden}
        return own.union(*(leaf_commands(subcommand, f"{name} {word}".strip()) for word, subcommand in visible.items()))

    return leaf_commands(get_command(app), "") - {""}


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
