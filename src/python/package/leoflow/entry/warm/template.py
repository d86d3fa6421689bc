"""A template: a fork of a warm Python that has run the DAG file of a version already, and forks a process for each try of
its tasks. A try then costs a fork and the task's own code. A file gets none if a try could notice the difference: see
`import_time.py`, `effects.py` and `check`."""

from __future__ import annotations

import errno
import functools
import os
import signal
import sys

from leoflow.common import leoflow_server, local_modules, masking, plain_files, real_sdk, task_log
from leoflow.common.reports import describe
from leoflow.common.settings import image_folder
from leoflow.entry import backends, dotenv, forks, libraries, task
from leoflow.entry.warm import import_time
from leoflow.entry.warm.effects import Effects, Refused, is_unchanged, state_of
from leoflow.running import loading

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class NotImported(Refused):
    """The DAG file cannot be imported now. A later attempt may succeed."""

    errno = errno.EAGAIN


class Template:
    """A DAG file that has run in this process: its workspace, its DAGs, and what it has printed."""

    def __init__(self, options: dict[str, Any]):
        """Runs the file; raises Refused if tries must run it themselves."""
        self.output = Output()
        self.hooks, self.effects = [], Effects()
        with noting_fork_hooks(self.hooks):
            try:
                spec = task.begin(options)
                if import_time.may_differ(spec["sources"].values()):
                    raise Refused("its import may have another result each time, because it uses the time, random values or the like")
                leoflow_server.configure(spec["socket"], spec["token"])
                self.run_file(spec, options)
            except Refused:
                raise
            except BaseException as error:
                raise NotImported(f"it cannot be imported: {describe(error)}") from None
        self.check()
        self.watched = self.files_to_watch()
        # As after the import of a try.
        loading.finish()
        self.output.end()

    def run_file(self, spec, options):
        roots = local_modules.project_roots(spec["roots"])
        self.folders = {path: state_of(path) for path in (*dotenv.paths(roots), *local_modules.plugins_folders(spec["roots"]))}
        self.workspace = task.enter_workspace(spec, options, self.refuse_restart)
        if real_sdk.is_active() and any(self.folders[path] for path in local_modules.plugins_folders(spec["roots"])):
            raise Refused("it has plugins, which begin before the file")
        # Each fork has a mark of its own; a copy of this one would hide a process that a task leaves running.
        os.environ.pop(forks.MARK, None)
        sink = task_log.to_keeper()
        self.workspace.install()
        backend = backends.current()
        backend.begin_log(sink)
        self.modules, self.descriptors, self.shared = set(sys.modules), descriptors(), shared_mappings()
        self.effects.begin()
        self.dags = backend.load(spec, self.workspace)
        self.effects.end()
        task_log.finish()

    def refuse_restart(self, *_):
        raise Refused("its variables are read when Python starts")

    def check(self):
        """Raises Refused if a fork of this process could differ from one that runs the file itself."""
        threads = libraries.end_threads()
        if threads:
            raise Refused(f"it starts threads: {', '.join(threads)}")
        if descriptors() != self.descriptors:
            raise Refused("it keeps files or connections open")
        if shared_mappings() - self.shared:
            raise Refused("it has memory that its forks would share, such as a lock of multiprocessing")
        if signal.getitimer(signal.ITIMER_REAL)[0]:
            raise Refused("it sets a timer")
        if self.hooks:
            raise Refused(f"it runs code at each fork: {self.hooks[0]}")
        if leoflow_server.was_queried() or masking.has_secrets():
            raise Refused("it reads Variables, Connections or secrets")
        if image_folder.is_in_use():
            raise Refused("it has an image_folder")
        sources = self.workspace.executed
        if import_time.may_differ(text for path, text in sources.items() if path not in self.workspace.stored):
            raise Refused("its modules may have another result each time")

    def files_to_watch(self):
        """Returns the state of what the file has read, by path. Stored sources do not change."""
        stored = self.workspace.stored
        watched = {path: state for path, state in self.effects.read.items() if path not in stored}
        for name in set(sys.modules) - self.modules:
            # Of a compiled module, Python has not opened the source.
            path = getattr(sys.modules.get(name), "__file__", None)
            if path and path not in stored and not is_unchanged(path):
                watched.setdefault(path, state_of(path))
        return {**self.folders, **watched}

    def is_current(self) -> bool:
        """False once a file that the DAG file has read has changed."""
        return all(state_of(path) == state for path, state in self.watched.items())

    def run_try(self, options: dict[str, Any]) -> None:
        """In a fork: runs the try."""
        self.output.repeat()
        task_log.reconnect()
        task.main(options, self)


class Output:
    """What a DAG file prints, which becomes part of each try's log."""

    def __init__(self):
        self.files = [os.memfd_create(name) for name in ("output", "errors")]
        for descriptor, file in enumerate(self.files, 1):
            os.dup2(file, descriptor)
        self.printed = []

    def end(self):
        for file in self.files:
            os.lseek(file, 0, os.SEEK_SET)
            self.printed.append(plain_files.read_descriptor(file))
            os.close(file)
        null = os.open("/dev/null", os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)
        os.close(null)

    def repeat(self):
        for descriptor, text in enumerate(self.printed, 1):
            os.write(descriptor, text)


def descriptors():
    """Returns the open descriptors, each with what it refers to."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[name] = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:
            # The descriptor of the listing.
            pass
    return found


def shared_mappings():
    """Returns the memory that forks would share with this process."""
    with open("/proc/self/maps", encoding="utf-8", errors="replace") as file:
        return {line for line in file if line.split()[1].endswith("s")}


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
