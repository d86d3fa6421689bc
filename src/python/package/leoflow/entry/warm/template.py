"""A template: a fork of a warm Python that has run the DAG file of a version already, and forks a process for each try of
its tasks. A try then costs a fork and the task's own code. Only files for which this makes no difference get one."""

from __future__ import annotations

import functools
import os
import signal
import sys

from leoflow.common import leoflow_server, local_modules, masking, plain_files, task_log
from leoflow.common.reports import describe
from leoflow.common.settings import image_folder
from leoflow.entry import backends, dotenv, libraries, reads, task
from leoflow.entry.warm import import_time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# Maximum number of other files that the DAG file reads.
MOST_READS = 64


class Refused(Exception):
    """Why a version gets no template."""


class Template:
    """A DAG file that has run in this process: its workspace, its DAGs, and what it has printed."""

    def __init__(self, options: dict[str, Any]):
        """Runs the file; raises Refused if tries must run it themselves."""
        try:
            self.run_file(options)
        except Refused:
            raise
        except BaseException as error:
            raise Refused(f"it cannot be imported: {describe(error)}") from None
        self.read_output()

    def run_file(self, options):
        self.captured = [os.memfd_create(name) for name in ("output", "errors")]
        for descriptor, captured in enumerate(self.captured, 1):
            os.dup2(captured, descriptor)
        self.hooks = []
        with noting_fork_hooks(self.hooks):
            spec = task.begin(options)
            leoflow_server.configure(spec["socket"], spec["token"])
            before = open_descriptors()
            self.workspace = task.enter_workspace(spec, options, self.refuse_restart)
            self.sink = task_log.to_keeper()
            before |= open_descriptors()
            self.reads = {}
            is_reading = reads.note(self.workspace, self.reads)
            self.workspace.install()
            backend = backends.current()
            backend.begin_log(self.sink)
            self.dags = backend.load(spec, self.workspace)
            is_reading.clear()
        task_log.finish()
        self.check(before)
        others = [path for path in self.reads if path not in self.workspace.executed]
        roots = self.workspace.roots
        watched = [*others, *dotenv.paths(local_modules.project_roots(roots)), *local_modules.plugins_folders(roots)]
        self.stats = {path: stat_of(path) for path in watched}

    def refuse_restart(self, *_):
        raise Refused("its variables are read when Python starts")

    def check(self, before):
        """Raises Refused if a fork of this process could differ from one that runs the file itself."""
        libraries.end_threads()
        if libraries.threads():
            raise Refused(f"it starts threads: {', '.join(libraries.threads())}")
        if open_descriptors() - before:
            raise Refused("it keeps files or connections open")
        if has_children():
            raise Refused("it starts processes")
        if signal.getitimer(signal.ITIMER_REAL)[0]:
            raise Refused("it sets a timer")
        if self.hooks:
            raise Refused(f"it runs code at each fork: {self.hooks[0]}")
        if leoflow_server.was_queried() or masking.has_secrets():
            raise Refused("it reads Variables, Connections or secrets")
        if image_folder.is_in_use():
            raise Refused("it has an image_folder")
        if len(self.reads) > MOST_READS:
            raise Refused("it reads many files")
        if import_time.may_differ(self.workspace.executed.values()):
            raise Refused("it may have another result each time, because it uses the time, random values or the like")

    def is_current(self):
        """False once a file that the DAG file has read has changed."""
        return all(stat_of(path) == stat for path, stat in self.stats.items())

    def run_try(self, options: dict[str, Any]) -> None:
        """In a fork: runs the try."""
        for descriptor, captured in enumerate(self.printed, 1):
            os.write(descriptor, captured)
        task_log.reconnect()
        task.main(options, self)

    def read_output(self):
        """Reads what the file has printed, which becomes part of each try's log."""
        self.printed = []
        for captured in self.captured:
            os.lseek(captured, 0, os.SEEK_SET)
            self.printed.append(plain_files.read_descriptor(captured))
            os.close(captured)
        null = os.open("/dev/null", os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)
        os.close(null)


def open_descriptors():
    return {name for name in os.listdir("/proc/self/fd") if os.path.lexists(f"/proc/self/fd/{name}")}


def stat_of(path):
    try:
        stat = os.stat(path)
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size, stat.st_ino


def has_children():
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


class noting_fork_hooks:
    """Notes which modules outside of the standard library register fork hooks."""

    def __init__(self, hooks):
        self.hooks, self.original = hooks, os.register_at_fork

    def __enter__(self):
        @functools.wraps(self.original)
        def register(**functions):
            module = sys._getframe(1).f_globals.get("__name__", "?")
            if module.partition(".")[0] not in sys.stdlib_module_names | {"leoflow"}:
                self.hooks.append(module)
            self.original(**functions)

        os.register_at_fork = register

    def __exit__(self, *_):
        os.register_at_fork = self.original
