"""Measures a data migration of 1 M rows under 200 requests per second, then kills the server 20 times during the same
migration. Both results must be exact. Part of scripts/bench; also `cd scripts && python3 -m benchmarks.data_migration`.

The migration is V0013, which moves rendered template fields into a table of their own. The server runs it in batches,
as after an upgrade. The requests start before it and end after it, each on a connection of its own.
"""

import json
import os
import random
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from benchmarks.load import Load, log_in
from benchmarks.machine import free_port

ROWS, RATE, KILLS, VERSION = 1_000_000, 200, 20, 13
# Time limit of a whole migration, seconds.
LIMIT = 3000
# Checksum of all values, in the old column or the new table.
CONTENT = """
    SELECT count(*), sum(hashtextextended(concat_ws('|', ti.dag_id, ti.run_id, ti.task_id, ti.map_index,
                                                    coalesce(f.rendered_fields, ti.rendered)::text), 0)::numeric),
           count(ti.rendered), count(f.rendered_fields)
    FROM task_instance ti LEFT JOIN rendered_task_instance_fields f USING (dag_id, run_id, task_id, map_index)
"""
FILL = f"""
    INSERT INTO dag_run (dag_id, run_id, run_type, state, logical_date, run_after, queued_at, start_date, end_date)
    SELECT 'hello', 'old__' || n, 'manual', 'success', at, at, at, at, at
    FROM (SELECT n, now() - n * interval '1 minute' AS at FROM generate_series(1, {ROWS // 10}) n) old;
    INSERT INTO task_instance (dag_id, run_id, task_id, map_index, state, try_number, start_date, end_date, rendered)
    SELECT dag_id, run_id, 't' || n, -1, 'success', 1, start_date, end_date,
           json_build_object('op_args', json_build_array(run_id, n), 'bash_command', 'echo ' || repeat(run_id, 5))
    FROM dag_run, generate_series(0, 9) n WHERE run_id LIKE 'old\\_\\_%';
"""
UNDO_MIGRATION = f"""
    UPDATE task_instance ti SET rendered = f.rendered_fields FROM rendered_task_instance_fields f
    WHERE (ti.dag_id, ti.run_id, ti.task_id, ti.map_index) = (f.dag_id, f.run_id, f.task_id, f.map_index);
    TRUNCATE rendered_task_instance_fields;
"""
MARK_PENDING = f"""
    UPDATE data_migration SET status = 'pending', watermark = NULL, rows = 0, batches = 0, round = 1, batch_size = 500
    WHERE version = {VERSION};
"""


class Instance:
    def __init__(self, binary, folder, postgres_bin):
        self.binary, self.home, self.port = binary, folder / "home", free_port()
        self.begun = time.monotonic()
        self.environment = {
            **os.environ, "HOME": str(folder), "PATH": f"{postgres_bin}:{os.environ['PATH']}",
            "LEOFLOW_POSTGRES_SOURCE": "system", "LEOFLOW_UI": "none", "LEOFLOW_PYTHON_PACKAGES": "none",
        }

    def run(self, *arguments, check=True):
        return subprocess.run([self.binary, "--home", self.home, *arguments], env=self.environment, check=check, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True).stdout

    def sql(self, text):
        return self.run("lite", "psql", "--", "-X", "-A", "-t", "-q", "-c", text).strip()

    def start(self):
        self.password = json.loads(self.run("lite", "start", "--port", str(self.port), "--json"))["admin_password"]
        self.run("config", "set", "backup.schedule", "off")

    def migration(self):
        migration = json.loads(self.run("data-migrate", "list", "--json"))["data_migrations"][0]
        if migration["status"] == "failed" or time.monotonic() - self.begun > LIMIT:
            raise SystemExit(f"the data migration has not ended: {migration}")
        return migration

    def prepare(self, statements):
        """Creates rows that are not migrated and marks the migration as pending. Returns the rows' checksum."""
        self.sql(statements)
        self.sql("ANALYZE task_instance, rendered_task_instance_fields")
        content = self.sql(CONTENT).split("|")[:2]
        self.sql(MARK_PENDING)
        return content

    def check(self, content):
        """Returns True when all rows are migrated and the checksum is still `content`."""
        *migration, remaining, moved = self.sql(CONTENT).split("|")
        return migration == content and remaining == "0" and int(moved) >= ROWS

    def server_pid(self):
        """Returns the pid of the server; None unless the instance is healthy."""
        status = json.loads(self.run("lite", "status", "--json", check=False))
        return next((process["pid"] for process in status["processes"] if process["name"] == "server"), None) if status["state"] == "healthy" else None


def measure(binary, postgres_bin):
    values = {}
    with tempfile.TemporaryDirectory(prefix="leoflow-bench-") as folder:
        instance = Instance(binary, Path(folder), postgres_bin)
        instance.start()
        try:
            content = instance.prepare(FILL)
            instance.run("lite", "restart")
            values.update(under_load(instance))
            values["exact"] = instance.check(content)
            values["kills"], values["exact after kills"] = 0, True
            # Repeat the migration if it ends before the last kill.
            while values["kills"] < KILLS:
                content = instance.prepare(UNDO_MIGRATION)
                instance.run("lite", "restart")
                values["kills"] += kill_server_during_migration(instance, KILLS - values["kills"])
                values["exact after kills"] &= instance.check(content)
        finally:
            instance.run("lite", "stop", "--yes")
    return values


def under_load(instance):
    load = Load(instance.port, log_in(instance.port, instance.password), RATE)
    begun = time.monotonic()
    try:
        while instance.migration()["status"] != "verified":
            time.sleep(1)
        seconds = time.monotonic() - begun
        time.sleep(2)
    finally:
        load.end()
    return {"seconds": seconds, "requests": load.sent, "failed": len(load.failed), "slowest": max(load.seconds), "batches": instance.migration()["batches"]}


def kill_server_during_migration(instance, max_kills):
    kills = 0
    while kills < max_kills and instance.migration()["status"] != "verified":
        # The supervisor stops restarting a server that dies six times within a minute. A data migration starts some
        # seconds after the server.
        time.sleep(12 + 2 * random.random())
        pid = instance.server_pid()
        if pid and instance.migration()["status"] == "running":
            os.kill(pid, signal.SIGKILL)
            kills += 1
    while instance.migration()["status"] != "verified":
        time.sleep(1)
    return kills


def show(values):
    print(f"data migration, {ROWS} rows   {values['seconds']:8.1f} s   {values['batches']} batches under {RATE} requests/s")
    print(f"   failed requests           {values['failed']:8.0f} of {values['requests']}, slowest {values['slowest']:.2f} s")
    print(f"   exact                     {values['exact']!s:>8}")
    print(f"   server killed             {values['kills']:8.0f} times, exact {values['exact after kills']}")


if __name__ == "__main__":
    import argparse

    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--binary", required=True)
    arguments.add_argument("--postgres", required=True, help="folder with PostgreSQL's programs")
    options = arguments.parse_args()
    show(measure(options.binary, options.postgres))
