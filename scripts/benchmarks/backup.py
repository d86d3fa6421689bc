"""Measures a backup and a restore of a 450 MB database (pgbench -i -s 30), and pg_dump and pg_restore of the same
database. Part of scripts/bench.

Backup and restore are whole commands on a running instance; a restore ends when the instance serves again. Memory is
the peak resident set of the command, without PostgreSQL. pg_dump runs as `pg_dump -Fc`; pg_restore runs with one job
and with one job per core, and the faster run counts. The encrypted backup has one X25519 recipient. The scheduled
backup runs under 200 requests per second, each on a connection of its own.
"""

import json
import os
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

from benchmarks.load import Load, log_in

SCALE, RATE = 30, 200
# An age public key whose private key does not exist.
RECIPIENT = "age1lvyvwawkr0mcnnnncaghunadrqkmuf9e6507x9y920xxpp866cnql7dp2z"


def timed(*arguments, **options):
    begun = time.monotonic()
    subprocess.run(arguments, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **options)
    return time.monotonic() - begun


def timed_with_memory(*arguments, **options):
    """Runs a command. Returns its duration in seconds and its peak resident set in MiB."""
    begun, peak_kib = time.monotonic(), 0
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **options)
    while process.poll() is None:
        try:
            status = Path(f"/proc/{process.pid}/status").read_text()
        except OSError:
            break
        peak_kib = max([peak_kib] + [int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")])
        time.sleep(0.005)
    if process.wait() != 0:
        raise SystemExit(f"{arguments} failed")
    return time.monotonic() - begun, peak_kib / 1024


class BackupBench:
    def __init__(self, leoflow, postgres_bin, folder):
        self.leoflow, self.bin, self.folder, self.home = leoflow, postgres_bin, folder, folder / "home"
        self.environment = {**os.environ, "HOME": str(folder), "LEOFLOW_POSTGRES_SOURCE": "system",
                            "PATH": f"{postgres_bin}:{os.environ['PATH']}"}

    def command(self, *arguments):
        return subprocess.run([self.leoflow, "--home", self.home, *arguments], env=self.environment, check=True,
                              stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout

    def prepare(self, port):
        self.port = port
        self.password = json.loads(self.command("lite", "start", "--port", str(port), "--json"))["admin_password"]
        self.command("config", "set", "backup.schedule", "off")
        passwords = json.loads((self.home / "managed-postgres/credentials.json").read_text())
        common = {**self.environment, "PGHOST": str(self.home / "run")}
        self.application = {**common, "PGUSER": "leoflow", "PGDATABASE": "leoflow", "PGPASSWORD": passwords["application_password"]}
        self.superuser = {**common, "PGUSER": "postgres", "PGDATABASE": "postgres", "PGPASSWORD": passwords["superuser_password"]}
        timed(self.bin / "pgbench", "-i", "-q", "-s", str(SCALE), env=self.application)
        self.sql("CHECKPOINT")

    def sql(self, text):
        subprocess.run([self.bin / "psql", "-qX", "-c", text], env=self.superuser, check=True, stderr=subprocess.DEVNULL)

    def pg_restore(self, jobs, dump):
        self.sql("DROP DATABASE IF EXISTS bench")
        self.sql("CREATE DATABASE bench OWNER leoflow")
        self.sql("CHECKPOINT")
        seconds = timed(self.bin / "pg_restore", "-j", str(jobs), "-d", "bench", dump, env=self.application)
        self.sql("DROP DATABASE bench")
        return seconds

    def run(self):
        dump, ours, stream = self.folder / "theirs.dump", self.folder / "ours.tar.zst", self.folder / "stream.zst"
        yield "pg_dump -Fc", timed(self.bin / "pg_dump", "-Fc", "-f", dump, env=self.application)
        seconds, memory = timed_with_memory(self.leoflow, "--home", self.home, "lite", "backup", "--output", ours, env=self.environment)
        yield "backup", seconds
        yield "backup memory", memory
        pipe = f"'{self.bin}/pg_dump' -Fc -Z0 | zstd -q -3 -f -o '{stream}'"
        if subprocess.run(["sh", "-c", pipe], env=self.application).returncode == 0:
            yield "file", ours.stat().st_size / stream.stat().st_size
        yield from self.encrypted()
        yield from self.scheduled()
        yield "pg_restore", min(self.pg_restore(1, dump), self.pg_restore(os.cpu_count(), dump))
        self.sql("CHECKPOINT")
        seconds, memory = timed_with_memory(self.leoflow, "--home", self.home, "lite", "restore", "--input", ours, "--force", "--yes", env=self.environment)
        yield "restore", seconds
        yield "restore memory", memory

    def encrypted(self):
        self.command("config", "set", "backup.recipients", RECIPIENT)
        file = self.folder / "encrypted.tar.zst.age"
        yield "encrypted", timed_with_memory(self.leoflow, "--home", self.home, "lite", "backup", "--output", file, env=self.environment)[0]
        self.command("config", "unset", "backup.recipients")
        file.unlink()
        # A second backup without encryption, because the caches are warmer now than during the first.
        yield "plain again", timed_with_memory(self.leoflow, "--home", self.home, "lite", "backup", "--output", self.folder / "again.tar.zst", env=self.environment)[0]

    def scheduled(self):
        """Schedules backups every second until one is complete. The requests start before it and end after it."""
        made = lambda: [path for path in (self.home / "backups").glob("automatic-*") if "scheduled" in path.name]
        load = Load(self.port, log_in(self.port, self.password), RATE)
        try:
            time.sleep(2)
            self.command("config", "set", "backup.schedule", "* * * * * *")
            # The server rereads the settings every ten seconds.
            while not made():
                time.sleep(0.05)
            self.command("config", "set", "backup.schedule", "off")
            time.sleep(2)
        finally:
            load.end()
        yield "load failed", len(load.failed)
        yield "load requests", load.sent
        yield "load slowest", max(load.seconds)

    def end(self):
        subprocess.run([self.leoflow, "--home", self.home, "lite", "stop"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def measure(leoflow, postgres_bin, runs, free_port):
    samples = {}
    for _ in range(runs):
        with tempfile.TemporaryDirectory(prefix="leoflow-bench-") as folder:
            bench = BackupBench(leoflow, postgres_bin, Path(folder))
            try:
                bench.prepare(free_port())
                for figure, value in bench.run():
                    samples.setdefault(figure, []).append(value)
            finally:
                bench.end()
    worst = ("load failed", "load slowest")
    return {figure: (max if figure in worst else statistics.median)(values) for figure, values in samples.items()}


def show(values):
    ratio = lambda ours, theirs: f"{values[ours]:8.2f} s   {theirs} {values[theirs]:.2f} s   {values[ours] / values[theirs]:.2f} x"
    print(f"backup of pgbench -s {SCALE}      {ratio('backup', 'pg_dump -Fc')}")
    print(f"restore, to serving          {ratio('restore', 'pg_restore')}")
    print(f"memory of our process        {values['backup memory']:8.1f} MiB backup   {values['restore memory']:.1f} MiB restore")
    print(f"encrypted backup             {values['encrypted']:8.2f} s   {2 * values['encrypted'] / (values['backup'] + values['plain again']):.2f} x of plain, before and after it")
    print(f"scheduled backup             {values['load failed']:8.0f} of {values['load requests']:.0f} requests failed   "
          f"slowest {values['load slowest']:.2f} s, beside {RATE} requests/s")
    if "file" in values:
        print(f"file                         {values['file']:8.3f} x of pg_dump -Fc -Z0 | zstd -3")
