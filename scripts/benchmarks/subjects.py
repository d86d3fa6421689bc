"""The programs that scripts/bench measures. `run` yields figures with their values."""

import datetime
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.machine import dag_file, fetch, free_port, idle, stop, wait_for

ROOT = Path(__file__).resolve().parent.parent.parent
PEERS = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "leoflow-bench"
AIRFLOW, DAGSTER = "apache-airflow==3.3.*", "dagster dagster-webserver"


class Leoflow:
    binary = ROOT / "target/dist/leoflow"
    # The program given with --binary, to measure instead of this tree's build.
    binary_override = None
    postgres = None

    @classmethod
    def available(cls):
        if cls.binary_override:
            cls.binary = cls.binary_override
        else:
            subprocess.run(["cargo", "build", "--profile", "dist", "--locked", "--quiet"], cwd=ROOT, check=True)
        # Set up another home, so that PostgreSQL's files are present and their download is not measured.
        home = PEERS / "leoflow-home"
        subprocess.run([cls.binary, "--home", home, "setup", "--workspace", PEERS / "workspace"],
                       check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        cls.postgres = next((home / "managed-postgres/install").glob("*/**/bin/postgres"), None)
        return True

    def __init__(self, folder):
        self.folder, self.home, self.port = folder, folder / "home", free_port()
        self.environment = {**os.environ, "HOME": str(folder), "LEOFLOW_POSTGRES_SOURCE": "system"}
        if self.postgres:
            self.environment["PATH"] = f"{self.postgres.parent}:{os.environ['PATH']}"

    def command(self, *arguments):
        return subprocess.run([self.binary, "--home", self.home, *arguments], env=self.environment, check=True,
                              stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout

    def timed(self, *arguments):
        begun = time.monotonic()
        self.command(*arguments)
        return time.monotonic() - begun

    def run(self):
        yield "first start", self.timed("lite", "start", "--port", str(self.port))
        yield "stop", self.timed("lite", "stop")
        yield "warm start", self.timed("lite", "start")
        status = json.loads(self.command("lite", "status", "--json"))
        yield from idle(status["pid"])
        yield "postgres killed -> serving", self.kill_postgres()
        yield "saved -> visible", self.save("chain", dag_file("chain", 10, True))
        yield "chain of 10 tasks", self.timed("dags", "trigger", "chain", "--wait")
        self.save("wide", dag_file("wide", 100, False))
        yield "100 independent tasks", self.timed("dags", "trigger", "wide", "--wait")
        yield "500 files", self.parse(500)

    def save(self, dag_id, text):
        """Saves a DAG file. Returns the seconds until the DAG is in the list."""
        file = self.folder / "leoflow" / f"{dag_id}.py"
        partial = file.with_suffix(".partial")
        partial.write_text(text)
        begun = time.monotonic()
        partial.rename(file)
        wait_for(lambda: any(dag["dag_id"] == dag_id for dag in json.loads(self.command("dags", "list", "--json"))["dags"]))
        return time.monotonic() - begun

    def parse(self, count):
        """Starts Leoflow with `count` new files. Returns the seconds until all their DAGs are in the list."""
        self.command("lite", "stop")
        for n in range(count):
            (self.folder / "leoflow" / f"many_{n}.py").write_text(dag_file(f"many_{n}", 5, True))
        begun = time.monotonic()
        self.command("lite", "start")
        listed = lambda: [dag["dag_id"] for dag in json.loads(self.command("dags", "list", "--json"))["dags"]]
        wait_for(lambda: sum(dag_id.startswith("many_") for dag_id in listed()) >= count, pause=0.5)
        return time.monotonic() - begun

    def kill_postgres(self):
        """Kills the postmaster. Returns the seconds until another one serves."""
        pid_file = self.home / "managed-postgres/data/postmaster.pid"
        old = pid_file.read_text().split("\n")[0]
        os.kill(int(old), signal.SIGKILL)

        def serving():
            try:
                new = pid_file.read_text().split("\n")[0]
            except OSError:
                return False
            return new not in ("", old) and fetch(f"http://127.0.0.1:{self.port}/api/healthz")[0]

        return wait_for(serving, limit=30)

    def end(self):
        subprocess.run([self.binary, "--home", self.home, "lite", "stop"], stdout=subprocess.DEVNULL)


class Foreground:
    """A program that `start` runs as a child process."""

    process = None

    def stop_and_restart(self):
        yield "stop", stop(self.process, signal.SIGINT)
        yield "warm start", self.start()
        yield from idle(self.process.pid)

    def end(self):
        if self.process and self.process.poll() is None:
            stop(self.process, signal.SIGINT)


class BarePostgres(Foreground):
    """Bare Postgres, as a baseline: initdb and a server with default settings."""

    @classmethod
    def available(cls):
        if Leoflow.postgres is None:
            Leoflow.available()
        cls.bin = Leoflow.postgres.parent if Leoflow.postgres else None
        # Postgres refuses to run as root, so root starts it as another user in a user namespace, as Leoflow does.
        cls.prefix = ["unshare", "--user", "--map-user=65534", "--map-group=65534"] if os.geteuid() == 0 else []
        return cls.bin is not None

    def __init__(self, folder):
        self.folder, self.data = folder, folder / "data"

    def start(self):
        self.process = subprocess.Popen([*self.prefix, self.bin / "postgres", "-D", self.data, "-k", self.folder, "-c", "listen_addresses="],
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
        ready = [self.bin / "pg_isready", "-q", "-h", self.folder]
        return wait_for(lambda: subprocess.run(ready).returncode == 0)

    def run(self):
        begun = time.monotonic()
        subprocess.run([*self.prefix, self.bin / "initdb", "-D", self.data, "-U", "postgres", "-A", "trust"], check=True, stdout=subprocess.DEVNULL)
        self.start()
        yield "first start", time.monotonic() - begun
        yield from self.stop_and_restart()


class Peer(Foreground):
    """A program with an HTTP server, for comparison."""

    @classmethod
    def available(cls):
        return cls.program.exists()

    def __init__(self, folder):
        self.folder, self.port = folder, free_port()

    def start(self):
        self.process = subprocess.Popen(self.command(), env={**os.environ, **self.variables()}, cwd=self.folder,
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
        return wait_for(self.healthy, pause=0.05)

    def run(self):
        yield "first start", self.start()
        yield from self.stop_and_restart()


class Airflow(Peer):
    program = PEERS / "airflow/bin/airflow"

    def run(self):
        (self.folder / "dags").mkdir()
        (self.folder / "dags/chain.py").write_text(dag_file("chain", 10, True))
        (self.folder / "dags/wide.py").write_text(dag_file("wide", 100, False))
        yield from super().run()
        yield "chain of 10 tasks", self.run_dag("chain")
        yield "100 independent tasks", self.run_dag("wide")

    def run_dag(self, dag_id, limit=120):
        """Runs a DAG. Returns the seconds by the run's own dates, because Airflow's CLI takes seconds to start."""
        for arguments in (["unpause", dag_id], ["trigger", dag_id]):
            subprocess.run([self.program, "dags", *arguments], env={**os.environ, **self.variables()}, check=True,
                           stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        database = f"file:{self.folder}/airflow.db?mode=ro"
        query = f"SELECT queued_at, end_date, state FROM dag_run WHERE dag_id = '{dag_id}' ORDER BY id DESC LIMIT 1"
        found = []

        def ended():
            found[:] = sqlite3.connect(database, uri=True).execute(query)
            return found and found[0][2] == "success"

        wait_for(ended, limit=limit, pause=0.5)
        queued, ended = (datetime.datetime.fromisoformat(text) for text in found[0][:2])
        return (ended - queued).total_seconds()

    def variables(self):
        return {"AIRFLOW_HOME": str(self.folder), "AIRFLOW__CORE__LOAD_EXAMPLES": "False", "AIRFLOW__API__PORT": str(self.port),
                "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{self.port}/execution/",
                "PATH": f"{self.program.parent}:{os.environ['PATH']}"}

    def command(self):
        return [self.program, "standalone"]

    def healthy(self):
        ok, body = fetch(f"http://127.0.0.1:{self.port}/api/v2/monitor/health")
        return ok and json.loads(body)["scheduler"]["status"] == "healthy"


class Dagster(Peer):
    program = PEERS / "dagster/bin/dagster"

    def variables(self):
        return {"DAGSTER_HOME": str(self.folder), "DAGSTER_DISABLE_TELEMETRY": "1", "PATH": f"{self.program.parent}:{os.environ['PATH']}"}

    def command(self):
        definitions = self.folder / "definitions.py"
        definitions.write_text("import dagster\n\n@dagster.asset\ndef one():\n    return 1\n\ndefs = dagster.Definitions([one])\n")
        return [self.program, "dev", "-h", "127.0.0.1", "-p", str(self.port), "-f", definitions]

    def healthy(self):
        return fetch(f"http://127.0.0.1:{self.port}/server_info")[0]


def install_peers():
    for name, requirements in (("airflow", AIRFLOW), ("dagster", DAGSTER)):
        venv = PEERS / name
        if not (venv / "bin" / name).exists():
            shutil.rmtree(venv, ignore_errors=True)
            subprocess.run([sys.executable, "-m", "venv", venv], check=True)
            subprocess.run([venv / "bin/pip", "install", "--quiet", *requirements.split()], check=True)
