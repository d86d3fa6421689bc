"""Runs a DAG file, and records its source and the sources of its local modules."""

from __future__ import annotations

import codecs
import importlib
import importlib.machinery
import io
import os
import sys
import types

from leoflow.common import airflow_version, local_modules, real_sdk
from leoflow.common.settings import image_folder
from leoflow.entry import dotenv, libraries

# Module names that files of the workspace cannot override.
NOT_LOCAL = frozenset(sys.stdlib_module_names) | {"airflow", "leoflow"}
# Submodules that DAG files use after importing only the package, because Airflow imports the submodules.
LOADED_BY_AIRFLOW = {
    "concurrent": ("futures",), "importlib": ("abc", "metadata", "resources", "util"),
    "urllib": ("error", "parse", "request"),
}


def offer_submodules(package, names):
    """Makes submodules of a package available as attributes; each is imported on first access."""

    def look_up(name):
        if name in names:
            return importlib.import_module(f"{package.__name__}.{name}")
        raise AttributeError(f"module {package.__name__!r} has no attribute {name!r}")

    package.__dict__.setdefault("__getattr__", look_up)


class Workspace:
    """The folders whose modules a DAG file may import (`roots`), nearest first: the `dags` folder of its project, if it
    has one, the project's folder, and the workspace's."""

    def __init__(self, roots, stored=None):
        self.roots = [os.path.abspath(root) for root in roots]
        self.link_target_folders = local_modules.link_target_folders(self.roots)
        # Stored sources of a DAG version, by path; other files are read from disk.
        self.stored = stored or {}
        # Sources that have been executed, by path.
        self.executed = {}
        # Plugins that could not be loaded, with reasons.
        self.plugin_problems = []
        self.email_problems = []

    @property
    def paths_before_packages(self):
        """Import folders that precede the installed packages: `PYTHONPATH` of the project's `.env`, then the roots."""
        dags = local_modules.dags_folder(self.roots)
        return list(dict.fromkeys([*dotenv.python_path(), *(root for root in self.roots if root not in dags)]))

    @property
    def paths_after_packages(self):
        """Import folders that follow the installed packages: `dags` and `plugins`, and the folder that contains the
        target of a project that is a symbolic link."""
        plugins = local_modules.plugins_folders(self.roots)
        existing = [folder for folder in plugins if os.path.isdir(folder) or any(path.startswith(folder + os.sep) for path in self.stored)]
        folders = (*local_modules.dags_folder(self.roots), *existing, *self.link_target_folders)
        return [folder for folder in folders if folder not in self.paths_before_packages]

    def owns(self, path):
        """True for a path below one of the roots."""
        path = self.own_path(path)
        return any(path == root or path.startswith(root + os.sep) for root in (*self.roots, *self.link_target_folders))

    def own_path(self, path):
        """Returns the path below the roots of a file that code reaches through `image_folder`."""
        inside = image_folder.in_project(path)
        if inside == path:
            return path
        # The same file by the path that the server knows, which may lead through a link.
        project = local_modules.project_roots(self.roots)[0]
        return os.path.join(project, os.path.relpath(inside, os.path.realpath(project)))

    def source(self, path):
        """Returns the decoded source of a file, and records it in `executed`."""
        path = self.own_path(path)
        if path in self.executed:
            return self.executed[path]
        if path in self.stored:
            text = self.stored[path]
            import linecache

            # Tracebacks then show the lines that were executed, not those that are now on disk.
            linecache.cache[path] = (len(text), None, text.splitlines(True), path)
        else:
            text = read_source(path)
        self.executed[path] = text
        return text

    def install(self):
        """Installs the import hooks. Local modules come after the standard library and before installed packages; as in
        Airflow, modules in `dags` and `plugins` come after installed packages. Call `enter` first, which sets
        PYTHONPATH."""
        workspace = self

        class Loader(importlib.machinery.SourceFileLoader):
            def get_code(self, fullname):
                return compile(workspace.source(self.path), self.path, "exec", dont_inherit=True)

        kinds = [
            (importlib.machinery.ExtensionFileLoader, importlib.machinery.EXTENSION_SUFFIXES),
            (Loader, importlib.machinery.SOURCE_SUFFIXES),
        ]
        finder = importlib.machinery.FileFinder.path_hook(*kinds)

        def hook(path):
            if not workspace.owns(os.path.abspath(path)) or "site-packages" in path.split(os.sep):
                raise ImportError("not in the workspace")
            return finder(path)

        class StoredFinder:
            """Finder for the stored modules of a DAG version, which may no longer exist on disk."""

            def __init__(self, folders):
                self.folders = folders

            def find_spec(self, name, path=None, target=None):
                if name.partition(".")[0] in NOT_LOCAL:
                    return None
                for folder in self.folders if path is None else path:
                    base = os.path.join(folder, name.rpartition(".")[2])
                    for file, is_package in ((os.path.join(base, "__init__.py"), True), (f"{base}.py", False)):
                        if file in workspace.stored:
                            import importlib.util

                            return importlib.util.spec_from_file_location(
                                name, file, loader=Loader(name, file),
                                submodule_search_locations=[base] if is_package else None,
                            )
                return None

        self.unload_overridden()
        sys.path_hooks.insert(0, hook)
        # Removes importers that were cached before the hook existed.
        for path in [path for path in sys.path_importer_cache if self.owns(os.path.abspath(path))]:
            del sys.path_importer_cache[path]
        if self.stored:
            sys.meta_path.insert(0, StoredFinder(self.paths_before_packages))
            sys.meta_path.append(StoredFinder(self.paths_after_packages))
        self.extend_path()

    def extend_path(self):
        """Adds the import folders to `sys.path`, before and after the installed packages."""
        installed = (position for position, folder in enumerate(sys.path) if "site-packages" in folder or "dist-packages" in folder)
        position = next(installed, len(sys.path))
        sys.path[position:position] = self.paths_before_packages
        sys.path.extend(self.paths_after_packages)

    def unload_overridden(self):
        """Unloads preloaded packages that have the name of a module of the workspace."""
        for name in libraries.loaded_ahead - NOT_LOCAL:
            bases = [os.path.join(folder, name) for folder in self.paths_before_packages]
            files = [file for base in bases for file in (f"{base}.py", os.path.join(base, "__init__.py"))]
            if any(file in self.stored or os.path.exists(file) for file in files) or any(map(os.path.isdir, bases)):
                for module in [loaded for loaded in sys.modules if loaded.partition(".")[0] == name]:
                    del sys.modules[module]

    def enter(self, is_outside=False):
        """Sets the project's environment variables, and its name for hints. `is_outside` is true in a process that
        Leoflow did not start."""
        local_modules.enter_project(self.roots, is_outside)
        roots = local_modules.project_roots(self.roots)
        # Code finds its files below Airflow's folder; that of another Airflow on this machine does not matter.
        os.environ["AIRFLOW_HOME"] = roots[0]
        dotenv.load(roots, warn=not is_outside)
        dotenv.own_commands_first()
        if real_sdk.is_active():
            real_sdk.enter_project(self.roots)

    def module_name(self, path):
        return "leoflow_dag_" + os.path.splitext(os.path.basename(path))[0]

    def run(self, path):
        """Runs a DAG file's top level; returns its module."""
        path = os.path.abspath(path)
        if airflow_version.is_yaml(path):
            raise airflow_version.needs_yaml_importer(path)
        code = compile(self.source(path), path, "exec", dont_inherit=True)
        module = types.ModuleType(self.module_name(path))
        module.__file__ = path
        sys.modules[module.__name__] = module
        exec(code, module.__dict__)
        return module


def read_source(path: str) -> str:
    """Returns the decoded source of a file on the disk."""
    with open(path, "rb") as file:
        raw = file.read()
    return io.TextIOWrapper(io.BytesIO(raw), encoding_of(raw)).read()


def encoding_of(raw):
    """Returns the encoding of Python source, which its first two lines may declare."""
    if raw.startswith(codecs.BOM_UTF8) or any(b"coding" in line for line in raw.split(b"\n", 2)[:2]):
        import tokenize

        return tokenize.detect_encoding(io.BytesIO(raw).readline)[0]
    return "utf-8"


def prepare(limits: dict[str, int] | None = None, support: str | None = None) -> None:
    """Prepares the process before user code runs. `support` is a folder of packages that DAG files expect; installed
    packages take precedence."""
    sys.stdout.reconfigure(line_buffering=True)
    for package, names in LOADED_BY_AIRFLOW.items():
        offer_submodules(importlib.import_module(package), names)
    if support:
        sys.path.append(support)
    if limits:
        import resource

        for name, limit in limits.items():
            _, hard = resource.getrlimit(getattr(resource, name))
            # At the soft limit the kernel sends SIGXCPU, which tells the reason; at the hard limit, a second later,
            # SIGKILL.
            new_hard = limit + 1 if name == "RLIMIT_CPU" else limit
            new_hard = new_hard if hard == resource.RLIM_INFINITY else min(new_hard, hard)
            new_soft = max(1, min(limit, new_hard - 1)) if name == "RLIMIT_CPU" else min(limit, new_hard)
            resource.setrlimit(getattr(resource, name), (new_soft, new_hard))
