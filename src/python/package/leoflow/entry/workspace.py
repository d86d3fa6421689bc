"""Running a DAG file, and remembering what it and its local modules consist of."""

from __future__ import annotations

import codecs
import importlib
import importlib.machinery
import io
import os
import sys
import types

from leoflow.common import local_modules, real_sdk
from leoflow.entry import dotenv, libraries

# Names that no file of the workspace can take.
NOT_LOCAL = frozenset(sys.stdlib_module_names) | {"airflow", "leoflow"}
# Files name these after importing no more than the package: under Airflow something else has imported them.
LOADED_BY_AIRFLOW = {
    "concurrent": ("futures",), "importlib": ("abc", "metadata", "resources", "util"),
    "urllib": ("error", "parse", "request"),
}


def offer_submodules(package, names):
    """They are imported when they are first asked for."""

    def look_up(name):
        if name in names:
            return importlib.import_module(f"{package.__name__}.{name}")
        raise AttributeError(f"module {package.__name__!r} has no attribute {name!r}")

    package.__dict__.setdefault("__getattr__", look_up)


class Workspace:
    """The folders whose modules belong to the DAG file, the nearest first: `dags` of the project where there is one, the project's,
    then the whole workspace."""

    def __init__(self, roots, stored=None):
        self.roots = [os.path.abspath(root) for root in roots]
        # Sources of a version, by path; what is not there is read from the disk.
        self.stored = stored or {}
        # What was run, by path.
        self.ran = {}

    @property
    def places_before(self):
        """Where its modules are looked for before the installed packages: `PYTHONPATH` of its `.env`, then the roots."""
        dags = local_modules.dags_folder(self.roots)
        return list(dict.fromkeys([*dotenv.python_path(), *(root for root in self.roots if root not in dags)]))

    @property
    def places_behind(self):
        """And behind them: Airflow's folders of DAGs and of plugins."""
        plugins = [os.path.join(root, "plugins") for root in local_modules.without_dags(self.roots)]
        there = [one for one in plugins if os.path.isdir(one) or any(path.startswith(one + os.sep) for path in self.stored)]
        return [one for one in (*local_modules.dags_folder(self.roots), *there) if one not in self.places_before]

    def owns(self, path):
        return any(path == root or path.startswith(root + os.sep) for root in self.roots)

    def source(self, path):
        """The text of a file, as Python would decode it. Remembered."""
        if path in self.ran:
            return self.ran[path]
        if path in self.stored:
            text = self.stored[path]
            import linecache

            # Tracebacks show the lines that ran, not those that are there now.
            linecache.cache[path] = (len(text), None, text.splitlines(True), path)
        else:
            with open(path, "rb") as file:
                raw = file.read()
            text = io.TextIOWrapper(io.BytesIO(raw), encoding_of(raw)).read()
        self.ran[path] = text
        return text

    def install(self):
        """Local modules are found after Python's own and before installed packages; those of `dags` and `plugins` behind them, as on
        Airflow. Where these are is known once its environment was entered."""
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

        class Stored:
            """Modules of the version, also those that are not on the disk any more."""

            def __init__(self, places):
                self.places = places

            def find_spec(self, name, path=None, target=None):
                if name.partition(".")[0] in NOT_LOCAL:
                    return None
                for folder in self.places if path is None else path:
                    place = os.path.join(folder, name.rpartition(".")[2])
                    for file, is_package in ((os.path.join(place, "__init__.py"), True), (f"{place}.py", False)):
                        if file in workspace.stored:
                            import importlib.util

                            return importlib.util.spec_from_file_location(
                                name, file, loader=Loader(name, file),
                                submodule_search_locations=[place] if is_package else None,
                            )
                return None

        self.forget_loaded_ahead()
        sys.path_hooks.insert(0, hook)
        # Whoever looked there before there was a hook would be asked again.
        for path in [path for path in sys.path_importer_cache if self.owns(os.path.abspath(path))]:
            del sys.path_importer_cache[path]
        if self.stored:
            sys.meta_path.insert(0, Stored(self.places_before))
            sys.meta_path.append(Stored(self.places_behind))
        installed = (at for at, one in enumerate(sys.path) if "site-packages" in one or "dist-packages" in one)
        at = next(installed, len(sys.path))
        sys.path[at:at] = self.places_before
        sys.path.extend(self.places_behind)

    def forget_loaded_ahead(self):
        """The workspace's own module of a name comes before the installed one, also before one that is loaded."""
        for name in libraries.loaded_ahead - NOT_LOCAL:
            places = [os.path.join(folder, name) for folder in self.places_before]
            files = [file for place in places for file in (f"{place}.py", os.path.join(place, "__init__.py"))]
            if any(file in self.stored or os.path.exists(file) for file in files) or any(map(os.path.isdir, places)):
                for module in [one for one in sys.modules if one.partition(".")[0] == name]:
                    del sys.modules[module]

    def enter(self):
        """From here on the environment is the project's."""
        dotenv.load(local_modules.without_dags(self.roots))
        dotenv.own_python_first()
        if real_sdk.is_used():
            real_sdk.enter_project(self.roots)

    def module_name(self, path):
        return "leoflow_dag_" + os.path.splitext(os.path.basename(path))[0]

    def run(self, path):
        """Runs a DAG file's top level; returns its module."""
        path = os.path.abspath(path)
        code = compile(self.source(path), path, "exec", dont_inherit=True)
        module = types.ModuleType(self.module_name(path))
        module.__file__ = path
        sys.modules[module.__name__] = module
        exec(code, module.__dict__)
        return module


def encoding_of(raw):
    """As Python decides: by the first two lines."""
    if raw.startswith(codecs.BOM_UTF8) or any(b"coding" in line for line in raw.split(b"\n", 2)[:2]):
        import tokenize

        return tokenize.detect_encoding(io.BytesIO(raw).readline)[0]
    return "utf-8"


def prepare(limits: dict[str, int] | None = None, support: str | None = None) -> None:
    """Before anything of the user's runs. `support` is where packages are that DAG files expect; what
    is installed comes first."""
    sys.stdout.reconfigure(line_buffering=True)
    for package, names in LOADED_BY_AIRFLOW.items():
        offer_submodules(importlib.import_module(package), names)
    if support:
        sys.path.append(support)
    if limits:
        import resource

        for name, most in limits.items():
            soft, hard = resource.getrlimit(getattr(resource, name))
            # Beyond the soft limit comes SIGXCPU, which names its reason; SIGKILL a second later does not.
            last = most + 1 if name == "RLIMIT_CPU" else most
            last = last if hard == resource.RLIM_INFINITY else min(last, hard)
            first = max(1, min(most, last - 1)) if name == "RLIMIT_CPU" else min(most, last)
            resource.setrlimit(getattr(resource, name), (first, last))
