"""Implements `scripts/crash-soak --data`, which kills backups, restores, undos of restores, and purges.

While a thread writes rows, an operation starts and, at a random moment, the command or the whole process tree gets
SIGKILL. Then Leoflow is started. Expected: database, workspace, configuration and task logs all belong to the old state
or all to the new one; no acknowledged row is lost; the last complete backup is readable; a purge leaves no files and
processes, and the backup then restores the earlier state.
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
    """Writes rows, one transaction each, and records which were acknowledged."""

    def __init__(self, soak, before, first):
        super().__init__(daemon=True)
        self.soak, self.is_stopped, self.before = soak, False, set(before)
        self.acknowledged, self.tried, self.next = set(before), set(before), first

    def run(self):
        while not self.is_stopped:
            self.next += 1
            self.tried.add(self.next)
            if self.soak.psql(f"INSERT INTO soak_row VALUES ({self.next})") is not None:
                self.acknowledged.add(self.next)
            else:
                time.sleep(0.02)

    def new_rows(self):
        """Returns the rows that this round wrote."""
        return self.tried - self.before


class DataSoak:
    def __init__(self, soak):
        self.base, self.folder, self.home = soak, soak.folder, soak.home
        self.backup_file = self.folder / "backup.tar.zst"
        # The mark of the state in the backup, the rows that the backup must have, and the rows that it may have.
        self.backup = None
        # The mark of the replaced state, and its rows.
        self.replaced = None
        self.mark = 0
        self.durations = {kind: 1.0 for kind in KINDS}
        self.bin = None

    # Actions.

    def psql(self, text, database="leoflow"):
        """Returns the output, or None when the statement was not acknowledged."""
        try:
            password = json.loads((self.home / "managed-postgres/credentials.json").read_text())["application_password"]
        except OSError:
            return None
        environment = {**os.environ, "PGHOST": str(self.home / "run"), "PGUSER": "leoflow", "PGDATABASE": database, "PGPASSWORD": password}
        done = subprocess.run([self.bin / "psql", "-qAtX", "-v", "ON_ERROR_STOP=1", "-c", text], env=environment,
                              stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        return done.stdout.strip() if done.returncode == 0 else None

    def checked_psql(self, text):
        found = self.psql(text)
        if found is None:
            raise SystemExit(f"the datastore rejects {text}")
        return found

    def start(self):
        # A start that a killed command began may still be in progress.
        for _ in range(100):
            done = self.base.command("lite", "start", "--port", str(self.base.port), check=False)
            if done.returncode == 0:
                break
            if "already running" not in done.stderr:
                raise SystemExit(f"Leoflow does not start: {done.stderr}")
            time.sleep(0.05)
        stamp = next((self.home / "managed-postgres/install").glob("*/leoflow-install.json"))
        self.bin = stamp.parent / json.loads(stamp.read_text())["bin"]

    def new_mark(self):
        """Writes a new mark into each part of the state that a restore exchanges."""
        self.mark += 1
        mark = str(self.mark)
        self.checked_psql("CREATE TABLE IF NOT EXISTS soak_row (n bigint)")
        self.checked_psql(f"CREATE TABLE IF NOT EXISTS soak_mark (m text); DELETE FROM soak_mark; INSERT INTO soak_mark VALUES ('{mark}')")
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
        return {"database": self.checked_psql("SELECT m FROM soak_mark"), "workspace": read(self.folder / "leoflow/mark"),
                "config": config[0] if config else None, "task logs": read(self.home / "task-logs/soak/mark.log")}

    def rows(self):
        text = self.checked_psql("SELECT n FROM soak_row")
        return {int(line) for line in text.splitlines()}

    def replaced_rows(self):
        """Returns the rows of the replaced state."""
        names = self.checked_psql("SELECT datname FROM pg_database WHERE datname LIKE 'leoflow_side_%'").splitlines()
        if len(names) != 1:
            raise SystemExit(f"expected one replaced state, found {names}")
        return {int(line) for line in self.psql("SELECT n FROM soak_row", names[0]).splitlines()}

    def check_exchanged(self, mark, writer, expected):
        """Yields the problems of the rows after a restore or an undo. Each row of this round must be in the replaced
        state or, if it was written after the restart, in the current one. `expected` checks the other current rows."""
        rows, replaced = self.rows(), self.replaced_rows()
        lost = writer.acknowledged - rows - replaced
        if lost:
            yield f"{len(lost)} acknowledged rows are in neither state"
        if not expected(rows - writer.new_rows()):
            yield "the current state does not have the expected rows"
        if not writer.acknowledged - writer.new_rows() <= replaced:
            yield "the replaced state has lost rows"
        self.replaced = (mark, replaced)

    # Rounds.

    def run(self, kills, seconds):
        begun, problems, counts = time.monotonic(), [], dict.fromkeys(KINDS, 0)
        self.start()
        while sum(counts.values()) < kills and time.monotonic() - begun < seconds:
            kind = random.choices(KINDS, WEIGHTS)[0]
            if kind == "undo" and self.replaced is None or self.backup is None:
                kind = "backup" if self.backup is None else "restore"
            found, how = self.round(kind)
            counts[kind] += 1
            problems += [f"{kind} ({how}): {text}" for text in found]
            print(f"{sum(counts.values()):4} {kind:8} {how:34} {'; '.join(found) or 'ok'}", flush=True)
        summary = ", ".join(f"{kind} {count}" for kind, count in counts.items())
        print(f"{sum(counts.values())} kills ({summary}) in {time.monotonic() - begun:.0f} s, {len(problems)} problems")
        return problems, sum(counts.values())

    def round(self, kind):
        """Runs and kills one operation. Returns the problems, and how it was killed."""
        mark = self.new_mark()
        before = self.rows()
        writer = Writer(self, before, 100_000 * self.mark)
        if kind != "purge":
            writer.start()
            time.sleep(random.uniform(0, 0.2))
        required = set(writer.acknowledged)
        arguments = {"backup": ["lite", "backup", "--output", str(self.backup_file)],
                     "restore": ["lite", "restore", "--input", str(self.backup_file), "--force", "--yes"],
                     "undo": ["lite", "restore", "--undo", "--yes"],
                     "purge": ["uninstall", "--purge", "--yes"]}[kind]
        process = subprocess.Popen([self.base.binary, "--home", self.home, *arguments], env=self.base.environment,
                                   stdout=subprocess.DEVNULL, stderr=(self.folder / "stderr").open("w"))
        begun, delay, tree = time.monotonic(), random.uniform(0, 1.1 * self.durations[kind]), random.random() < 0.5
        try:
            process.wait(delay)
            how = "finished before the kill"
            self.durations[kind] = 0.5 * self.durations[kind] + 0.5 * (time.monotonic() - begun)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            self.durations[kind] = max(self.durations[kind], delay) * 1.02
            how = f"command after {delay:.2f} s"
            if tree:
                self.base.kill_all()
                how = f"tree after {delay:.2f} s"
        done = how == "finished before the kill" and process.returncode == 0
        writer.is_stopped = True
        if kind != "purge":
            writer.join()
        if how == "finished before the kill" and process.returncode != 0:
            return [f"the command failed with {process.returncode}: {(self.folder / 'stderr').read_text()[-300:]}"], how
        check = {"backup": self.after_backup, "restore": self.after_restore, "undo": self.after_undo, "purge": self.after_purge}[kind]
        return list(check(mark, writer, required, done)), how

    def start_and_read_mark(self):
        """Starts Leoflow, which finishes or undoes the operation. Returns the database's mark, and a problem if the
        marks of the parts differ."""
        self.start()
        marks = self.marks()
        return marks["database"], None if len(set(marks.values())) == 1 else f"mixed state: {marks}"

    def after_backup(self, mark, writer, required, done):
        now, mixed = self.start_and_read_mark()
        if mixed:
            yield mixed
        rows = self.rows()
        if not writer.acknowledged <= rows:
            yield f"{len(writer.acknowledged - rows)} acknowledged rows lost"
        if done:
            self.backup = (mark, required, set(writer.tried))
        elif self.backup is None:
            self.backup_file.unlink(missing_ok=True)
        if self.backup_file.exists():
            if self.base.command("lite", "backups", "verify", "--quick", str(self.backup_file), check=False).returncode != 0:
                yield "the backup cannot be read"
            # A kill after the rename leaves the complete new backup.
            if self.backup_mark() == mark:
                self.backup = (mark, required, set(writer.tried))

    def backup_mark(self):
        """Reads the mark of the state in the backup."""
        import io
        import tarfile
        raw = subprocess.run(["zstd", "-dqc", str(self.backup_file)], stdout=subprocess.PIPE, check=True).stdout
        with tarfile.open(fileobj=io.BytesIO(raw)) as tar:
            return tar.extractfile("workspace/mark").read().decode()

    def is_backup(self, rows):
        _, required, possible = self.backup
        return required <= rows <= possible

    def after_restore(self, mark, writer, required, done):
        yield from self.after_exchange(mark, writer, done, self.backup[0], self.is_backup)

    def after_undo(self, mark, writer, required, done):
        new, kept = self.replaced
        yield from self.after_exchange(mark, writer, done, new, lambda rows: rows == kept)

    def after_exchange(self, mark, writer, done, new, expected):
        """Checks that the current state is the unchanged state of `mark`, or that of `new` with the expected rows."""
        now, mixed = self.start_and_read_mark()
        if mixed:
            yield mixed
        rows = self.rows()
        if now == mark:
            if done:
                yield "the command succeeded, but the old state is current"
            if not writer.acknowledged <= rows:
                yield f"{len(writer.acknowledged - rows)} acknowledged rows lost"
        elif now == new:
            yield from self.check_exchanged(mark, writer, expected)
        else:
            yield f"the current mark is {now}, neither {mark} nor {new}"

    def after_purge(self, mark, writer, required, done):
        if not done and random.random() < 0.5:
            # A start undoes a purge that has removed nothing; otherwise it refuses.
            self.base.command("lite", "start")
            if self.psql("SELECT 1 FROM soak_mark") is not None:
                now, mixed = self.start_and_read_mark()
                if mixed or now != mark or not writer.acknowledged <= self.rows():
                    yield f"an undone purge has changed something: {mixed or now}"
        self.base.command("uninstall", "--purge", "--yes")
        if self.home.exists() or (self.folder / "leoflow").exists():
            yield "a purge left files behind"
        if self.base.processes():
            yield f"a purge left processes behind: {self.base.processes()}"
        self.replaced = None
        shutil.rmtree(self.home, ignore_errors=True)
        self.base.command("lite", "restore", "--input", str(self.backup_file))
        now, mixed = self.start_and_read_mark()
        if mixed or now != self.backup[0] or not self.is_backup(self.rows()):
            yield f"the backup does not restore the old machine: {mixed or now}"
        # The state that this restore replaced is empty, so no undo is tested with it.
        self.replaced = None
