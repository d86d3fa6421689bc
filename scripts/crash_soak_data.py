"""The part of scripts/crash-soak that kills backups, restores, undos and purges: `crash-soak --data`.

While somebody writes rows, an operation is begun and, at a random moment of it, the command or the whole
tree gets SIGKILL. Then Leoflow is started. Right is: database, workspace, configuration and task logs are of
one state, the old or the new; every row that was acknowledged to that state is in it; the last whole backup
still reads; after a purge nothing is left, and the backup brings the old machine back.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path

KINDS = ["backup", "restore", "undo", "purge"]
WEIGHTS = [3, 4, 3, 1]


class Writer(threading.Thread):
    """Writes rows, one transaction each, and remembers which were acknowledged."""

    def __init__(self, soak, before, first):
        super().__init__(daemon=True)
        self.soak, self.over, self.before = soak, False, set(before)
        self.acknowledged, self.tried, self.next = set(before), set(before), first

    def run(self):
        while not self.over:
            self.next += 1
            self.tried.add(self.next)
            if self.soak.psql(f"INSERT INTO soak_row VALUES ({self.next})") is not None:
                self.acknowledged.add(self.next)
            else:
                time.sleep(0.02)

    def fresh(self):
        """What this round has written."""
        return self.tried - self.before


class DataSoak:
    def __init__(self, soak):
        self.base, self.folder, self.home = soak, soak.folder, soak.home
        self.backup_file = self.folder / "backup.tar.zst"
        # What the backup has: its mark, rows that must be in it, rows that may be.
        self.backup = None
        # The state that was set aside: its mark and its acknowledged rows.
        self.aside = None
        self.mark = 0
        self.took = {kind: 1.0 for kind in KINDS}
        self.bin = None

    # Doing.

    def psql(self, text, database="leoflow"):
        """The output, or None when it was not acknowledged."""
        try:
            password = json.loads((self.home / "managed-postgres/credentials.json").read_text())["application_password"]
        except OSError:
            return None
        environment = {**os.environ, "PGHOST": str(self.home / "run"), "PGUSER": "leoflow", "PGDATABASE": database, "PGPASSWORD": password}
        done = subprocess.run([self.bin / "psql", "-qAtX", "-v", "ON_ERROR_STOP=1", "-c", text], env=environment,
                              stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        return done.stdout.strip() if done.returncode == 0 else None

    def must(self, text):
        found = self.psql(text)
        if found is None:
            raise SystemExit(f"the datastore does not take {text}")
        return found

    def start(self):
        # A command that was killed may have begun a start that is still under way.
        for _ in range(100):
            done = self.base.command("lite", "start", "--port", str(self.base.port), check=False)
            if done.returncode == 0:
                break
            if "already running" not in done.stderr:
                raise SystemExit(f"it does not start: {done.stderr}")
            time.sleep(0.05)
        stamp = next((self.home / "managed-postgres/install").glob("*/leoflow-install.json"))
        self.bin = stamp.parent / json.loads(stamp.read_text())["bin"]

    def new_mark(self):
        """Marks everything that is exchanged as being of one state."""
        self.mark += 1
        mark = str(self.mark)
        self.must("CREATE TABLE IF NOT EXISTS soak_row (n bigint)")
        self.must(f"CREATE TABLE IF NOT EXISTS soak_mark (m text); DELETE FROM soak_mark; INSERT INTO soak_mark VALUES ('{mark}')")
        (self.folder / "leoflow/mark").write_text(mark)
        config = self.home / "config.yaml"
        lines = [line for line in config.read_text().splitlines() if not line.startswith("# mark ")]
        partial = config.with_name(".soak")
        partial.write_text("\n".join([*lines, f"# mark {mark}", ""]))
        partial.chmod(0o600)
        partial.rename(config)
        logs = self.home / "task-logs/soak"
        logs.mkdir(parents=True, exist_ok=True)
        (logs / "mark.log").write_text(mark)
        return mark

    def marks(self):
        config = [line[7:] for line in (self.home / "config.yaml").read_text().splitlines() if line.startswith("# mark ")]
        read = lambda path: path.read_text() if path.exists() else None
        return {"database": self.must("SELECT m FROM soak_mark"), "workspace": read(self.folder / "leoflow/mark"),
                "config": config[0] if config else None, "task logs": read(self.home / "task-logs/soak/mark.log")}

    def rows(self):
        text = self.must("SELECT n FROM soak_row")
        return {int(line) for line in text.splitlines()}

    def rows_aside(self):
        """Of the state that is kept."""
        names = self.must("SELECT datname FROM pg_database WHERE datname LIKE 'leoflow_side_%'").splitlines()
        if len(names) != 1:
            raise SystemExit(f"not one state is kept, but {names}")
        return {int(line) for line in self.psql("SELECT n FROM soak_row", names[0]).splitlines()}

    def exchanged(self, mark, writer, expected):
        """After an exchange, what was written in this round is in one of the two states: in the new one when it
        was written after the restart. `expected` tells whether the rest is what came into force."""
        rows, aside = self.rows(), self.rows_aside()
        lost = writer.acknowledged - rows - aside
        if lost:
            yield f"{len(lost)} acknowledged rows are in neither state"
        if not expected(rows - writer.fresh()):
            yield "the rows in force are not those that were to come"
        if not writer.acknowledged - writer.fresh() <= aside:
            yield "the state that was set aside has lost rows"
        self.aside = (mark, aside)

    # Rounds.

    def run(self, kills, seconds):
        begun, problems, counts = time.monotonic(), [], dict.fromkeys(KINDS, 0)
        self.start()
        while sum(counts.values()) < kills and time.monotonic() - begun < seconds:
            kind = random.choices(KINDS, WEIGHTS)[0]
            if kind == "undo" and self.aside is None or self.backup is None:
                kind = "backup" if self.backup is None else "restore"
            found, how = self.round(kind)
            counts[kind] += 1
            problems += [f"{kind} ({how}): {text}" for text in found]
            print(f"{sum(counts.values()):4} {kind:8} {how:34} {'; '.join(found) or 'right'}", flush=True)
        told = ", ".join(f"{kind} {count}" for kind, count in counts.items())
        print(f"{sum(counts.values())} kills ({told}) in {time.monotonic() - begun:.0f} s, {len(problems)} problems")
        return problems, sum(counts.values())

    def round(self, kind):
        """One operation, killed. Returns what was wrong, and how it was killed."""
        mark = self.new_mark()
        before = self.rows()
        writer = Writer(self, before, 100_000 * self.mark)
        if kind != "purge":
            writer.start()
            time.sleep(random.uniform(0, 0.2))
        lower = set(writer.acknowledged)
        arguments = {"backup": ["lite", "backup", "--output", str(self.backup_file)],
                     "restore": ["lite", "restore", "--input", str(self.backup_file), "--force", "--yes"],
                     "undo": ["lite", "restore", "--undo", "--yes"],
                     "purge": ["uninstall", "--purge", "--yes"]}[kind]
        process = subprocess.Popen([self.base.binary, "--home", self.home, *arguments], env=self.base.environment,
                                   stdout=subprocess.DEVNULL, stderr=(self.folder / "stderr").open("w"))
        begun, delay, tree = time.monotonic(), random.uniform(0, 1.1 * self.took[kind]), random.random() < 0.5
        try:
            process.wait(delay)
            how = "it was done before"
            self.took[kind] = 0.5 * self.took[kind] + 0.5 * (time.monotonic() - begun)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            self.took[kind] = max(self.took[kind], delay) * 1.02
            how = f"command after {delay:.2f} s"
            if tree:
                self.base.kill_all()
                how = f"tree after {delay:.2f} s"
        done = how == "it was done before" and process.returncode == 0
        writer.over = True
        if kind != "purge":
            writer.join()
        if how == "it was done before" and process.returncode != 0:
            return [f"it failed with {process.returncode}: {(self.folder / 'stderr').read_text()[-300:]}"], how
        check = {"backup": self.after_backup, "restore": self.after_restore, "undo": self.after_undo, "purge": self.after_purge}[kind]
        return list(check(mark, writer, lower, done)), how

    def settle(self):
        """Whatever comes next finishes or undoes; then all is of one mark."""
        self.start()
        marks = self.marks()
        return marks["database"], None if len(set(marks.values())) == 1 else f"between two states: {marks}"

    def after_backup(self, mark, writer, lower, done):
        now, between = self.settle()
        if between:
            yield between
        rows = self.rows()
        if not writer.acknowledged <= rows:
            yield f"{len(writer.acknowledged - rows)} acknowledged rows lost"
        if done:
            self.backup = (mark, lower, set(writer.tried))
        elif self.backup is None:
            self.backup_file.unlink(missing_ok=True)
        if self.backup_file.exists():
            if self.base.command("lite", "backups", "verify", "--quick", str(self.backup_file), check=False).returncode != 0:
                yield "the backup does not read any more"
            # A kill right after the rename leaves the new one, whole.
            if self.backup_mark() == mark:
                self.backup = (mark, lower, set(writer.tried))

    def backup_mark(self):
        """Read from the file: which state is in it."""
        import io
        import tarfile
        raw = subprocess.run(["zstd", "-dqc", str(self.backup_file)], stdout=subprocess.PIPE, check=True).stdout
        with tarfile.open(fileobj=io.BytesIO(raw)) as tar:
            return tar.extractfile("workspace/mark").read().decode()

    def is_backup(self, rows):
        _, lower, upper = self.backup
        return lower <= rows <= upper

    def after_restore(self, mark, writer, lower, done):
        yield from self.after_exchange(mark, writer, done, self.backup[0], self.is_backup)

    def after_undo(self, mark, writer, lower, done):
        new, kept = self.aside
        yield from self.after_exchange(mark, writer, done, new, lambda rows: rows == kept)

    def after_exchange(self, mark, writer, done, new, expected):
        """Either the state of `mark` is in force as it was, or the one of `new`, with the rows that are expected."""
        now, between = self.settle()
        if between:
            yield between
        rows = self.rows()
        if now == mark:
            if done:
                yield "it was done, and the old state is in force"
            if not writer.acknowledged <= rows:
                yield f"{len(writer.acknowledged - rows)} acknowledged rows lost"
        elif now == new:
            yield from self.exchanged(mark, writer, expected)
        else:
            yield f"mark {now} is in force, neither {mark} nor {new}"

    def after_purge(self, mark, writer, lower, done):
        if not done and random.random() < 0.5:
            # A start takes it back where it had removed nothing, and else refuses.
            self.base.command("lite", "start")
            if self.psql("SELECT 1 FROM soak_mark") is not None:
                now, between = self.settle()
                if between or now != mark or not writer.acknowledged <= self.rows():
                    yield f"a purge that had not begun has changed something: {between or now}"
        self.base.command("uninstall", "--purge", "--yes")
        if self.home.exists() or (self.folder / "leoflow").exists():
            yield "something is left of a purge"
        if self.base.processes():
            yield f"processes are left of a purge: {self.base.processes()}"
        self.aside = None
        shutil.rmtree(self.home, ignore_errors=True)
        self.base.command("lite", "restore", "--input", str(self.backup_file))
        now, between = self.settle()
        if between or now != self.backup[0] or not self.is_backup(self.rows()):
            yield f"the backup does not bring the old machine back: {between or now}"
        # The empty instance that it replaced is of no interest.
        self.aside = None
