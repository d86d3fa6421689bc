"""Measures how long project environments take to build, and tasks that run with Apache Airflow's own SDK.

Cold: uv is installed and its cache is empty. Warm cache: a new home with that cache. Lock offline: the project's
environment was removed, and uv runs offline. Each time is from the saved file to the DAG in the list.
"""

import json
import shutil
import time

from benchmarks.machine import dag_file, wait_for
from benchmarks.subjects import Leoflow

KINDS = {"pandas + requests": "[pandas, requests]", "provider http": "[apache-airflow-providers-http]"}
FIGURES = [
    *((f"{kind}, {how}", "s") for kind in KINDS for how in ("cold", "warm cache", "lock offline")),
    ("another project of the same", "s"), ("SDK: first task after idle", "s"), ("SDK: trivial task, warm", "s"),
    ("SDK: 100 independent tasks", "s"),
]
# Time after which an idle warm Python process has ended.
IDLE_SECONDS = 13


class Environments(Leoflow):
    def run(self):
        yield from self.built("pandas + requests")
        yield from self.built("provider http")
        yield "another project of the same", self.project("another", "provider http")
        self.save_in("another", "wide", dag_file("wide", 100, False))
        time.sleep(IDLE_SECONDS)
        yield "SDK: first task after idle", self.timed("dags", "trigger", "another", "--wait")
        self.command("dags", "trigger", "another", "--wait")
        yield "SDK: trivial task, warm", self.duration("another")
        yield "SDK: 100 independent tasks", self.timed("dags", "trigger", "wide", "--wait")

    def built(self, kind):
        uv, cache = self.folder / "uv", self.home / "tools/uv"
        self.begin()
        # The download of uv is not measured.
        self.project("first", kind)
        self.command("lite", "stop")
        shutil.rmtree(uv, ignore_errors=True)
        shutil.copytree(cache, uv, ignore=shutil.ignore_patterns("cache", "compiled"))
        self.begin(uv)
        yield f"{kind}, cold", self.project("cold", kind)
        self.command("lite", "stop")
        shutil.rmtree(uv)
        shutil.move(cache, uv)
        self.begin(uv)
        yield f"{kind}, warm cache", self.project("warm", kind)
        self.command("lite", "stop")
        shutil.rmtree(self.home / "venvs")
        self.environment["UV_OFFLINE"] = "1"
        self.command("lite", "start")
        yield f"{kind}, lock offline", self.project("locked", kind)
        del self.environment["UV_OFFLINE"]

    def begin(self, uv=None):
        """Starts a new home, with a copy of the folder `uv` if given."""
        self.end()
        shutil.rmtree(self.home, ignore_errors=True)
        shutil.rmtree(self.folder / "leoflow", ignore_errors=True)
        if uv:
            shutil.copytree(uv, self.home / "tools/uv", symlinks=True)
        self.command("lite", "start", "--port", str(self.port))

    def project(self, name, kind):
        folder = self.folder / "leoflow" / name
        folder.mkdir()
        (folder / "leoflow.yaml").write_text(f"dependencies: {KINDS[kind]}\n")
        return self.save_in(name, name, dag_file(name, 1, False))

    def save_in(self, folder, dag_id, text):
        (self.folder / "leoflow" / folder / f"{dag_id}.py").write_text(text)
        begun = time.monotonic()
        listed = lambda: json.loads(self.command("dags", "list", "--json"))["dags"]
        wait_for(lambda: any(dag["dag_id"] == dag_id for dag in listed()), limit=300)
        return time.monotonic() - begun

    def duration(self, dag_id):
        """Returns the duration of the only task of the DAG's newest run."""
        run = json.loads(self.command("runs", "show", dag_id, "latest", "--json"))
        begun, ended = (time_of(run["task_instances"][0][name]) for name in ("start_date", "end_date"))
        return ended - begun


def time_of(text):
    import datetime

    return datetime.datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()
