"""Reads what the DAG files of a project need, from their sources and those of the project's modules that they import."""

from __future__ import annotations

import ast
import os
import warnings

from leoflow.airflow_2 import modules
from leoflow.common.hints import airflow_2, image_paths
from leoflow.common.hints.packages import package_of
from leoflow.common.settings import image_folder
from leoflow.entry.workspace import NOT_LOCAL, read_source
from leoflow.names import MODULES
from leoflow.survey.source_file import SourceFile

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# Places that are listed for one fact.
MOST_PLACES = 5
# Bytes; a larger file is data.
LARGEST = 4 * 1024 * 1024


class Findings:
    """Findings of one kind, each with the places where it was found: paths below the top folder, with lines."""

    def __init__(self):
        self.places: dict[str, list[str]] = {}
        self.counts: dict[str, int] = {}

    def add(self, fact: str, place: str) -> None:
        places = self.places.setdefault(fact, [])
        if len(places) < MOST_PLACES:
            places.append(place)
        self.counts[fact] = self.counts.get(fact, 0) + 1

    def all(self, **more: Any) -> list[dict[str, Any]]:
        return [{"what": fact, "places": places, "count": self.counts[fact], **{key: get(fact) for key, get in more.items()}}
                for fact, places in sorted(self.places.items())]


class Survey:
    """`roots` are the folders from which the modules of `project`, a folder, are imported, in order; places are relative to
    `top`."""

    def __init__(self, top: str, project: str, roots: list[str]):
        self.top = top
        self.project = project
        self.roots = roots
        self.modules, self.only_sdk = Findings(), Findings()
        self.removed, self.translated = Findings(), Findings()
        self.unreadable, self.image_paths = Findings(), Findings()
        self.variables, self.connections, self.environment = Findings(), Findings(), Findings()
        self._seen: set[str] = set()

    def read(self, files: list[str]) -> dict[str, Any]:
        pending = list(files)
        while pending:
            path = pending.pop()
            real = os.path.realpath(path)
            if real in self._seen:
                continue
            self._seen.add(real)
            pending += self._read_file(path)
        return {
            # The name of a company's own module is often that of a stranger's package: only the table decides.
            "modules": self.modules.all(package=package_of), "removed": self.removed.all(),
            "translated": self.translated.all(), "only_sdk": self.only_sdk.all(),
            "unreadable": self.unreadable.all(),
            "image_paths": self.image_paths.all(), "image_folder": self._image_folder(), "variables": self.variables.all(),
            "connections": self.connections.all(), "environment": self.environment.all(),
        }

    def _image_folder(self):
        """Returns the folder of an image that most strings name, and why it cannot be shown here (None if it can)."""
        folders = [folder for text in self.image_paths.places for folder in image_paths.folders_in(text)]
        if not folders:
            return None
        folder = max(image_paths.FOLDERS, key=lambda folder: folders.count(folder.rstrip("/"))).rstrip("/")
        return {"path": folder, "obstacle": image_folder.obstacle(folder, self.project)}

    def _read_file(self, path):
        """Reads a file; returns the files of the project that it imports."""
        shown = os.path.relpath(path, self.top)
        try:
            if os.path.getsize(path) > LARGEST:
                return []
            with warnings.catch_warnings():
                # Invalid escapes in the user's strings.
                warnings.simplefilter("ignore")
                source = SourceFile(ast.parse(read_source(path), path), self._package(path))
        except SyntaxError as error:
            self.unreadable.add(error.msg, f"{shown}:{error.lineno or 1}")
            return []
        except UnicodeDecodeError as error:
            line = error.object.count(b"\n", 0, error.start) + 1
            self.unreadable.add("it is not valid UTF-8; save it as UTF-8, or name its encoding in the first line", f"{shown}:{line}")
            return []
        except (OSError, ValueError, RecursionError, MemoryError) as error:
            # The parser raises MemoryError for code that is nested too deeply.
            self.unreadable.add(getattr(error, "strerror", None) or str(error) or type(error).__name__, f"{shown}:1")
            return []
        for facts, found in ((self.image_paths, source.image_paths), (self.removed, source.removed), (self.translated, source.translated),
                             (self.variables, source.variables), (self.connections, source.connections),
                             (self.environment, source.environment)):
            for fact, line in found.items():
                facts.add(fact, f"{shown}:{line}")
        local = []
        for module, names, line, is_optional in source.imports:
            files = self._local_files(module, names)
            local += files or ()
            # The code handles the failure of an optional import.
            if files is None and module and not is_optional:
                self._note_import(module, names, f"{shown}:{line}")
        return local

    def _note_import(self, module, names, place):
        top = module.partition(".")[0]
        full_names = [f"{module}.{name}" for name in names]
        if top == "airflow":
            self._note_airflow(module, names, full_names, place)
        elif top not in NOT_LOCAL:
            # Of a namespace package, the names have packages of their own: `from google.cloud import bigquery`.
            in_namespace = [] if package_of(module) else [name for name in full_names if package_of(name)]
            for name in in_namespace or [module]:
                self.modules.add(name, place)

    def _note_airflow(self, module, names, full_names, place):
        removed = airflow_2.removed_import([module, *full_names], advice=None)
        provider = package_of(module)
        if removed:
            old_names = [name for name in full_names if not name.endswith(".*")] or [module]
            is_translated = all(map(modules.is_translated, old_names))
            (self.translated if is_translated else self.removed).add(removed, place)
            for old_name in old_names:
                for successor in modules.needed_for(old_name):
                    self._note_airflow(successor, (), [], place)
        elif module in MODULES and all(name == "*" or name in MODULES[module] or f"{module}.{name}" in MODULES for name in names):
            pass
        elif provider:
            self.modules.add(module, place)
        else:
            self.only_sdk.add(module, place)

    def _package(self, path):
        """Returns the dotted name of a file's folder below the root that contains it."""
        root = max((root for root in self.roots if path.startswith(root + os.sep)), key=len, default=os.path.dirname(path))
        return os.path.relpath(os.path.dirname(path), root).replace(os.sep, ".").strip(".")

    def _local_files(self, module, names):
        """Returns the files of the project that an import loads; None if the module is not the project's."""
        first = module.partition(".")[0]
        if first in NOT_LOCAL:
            return None
        # As in Python, the first folder that has the top module provides all modules below it.
        for root in [root for root in self.roots if has_module(root, first)][:1]:
            base = os.path.join(root, *module.split("."))
            files = [base + ".py", os.path.join(base, "__init__.py"), *(os.path.join(base, f"{name}.py") for name in names),
                     *(os.path.join(base, name, "__init__.py") for name in names)]
            existing = [file for file in files if os.path.isfile(file)]
            return existing
        return None


def has_module(folder: str, name: str) -> bool:
    """True if a folder has a module, or a package with or without `__init__.py`; a folder with other files is none."""
    base = os.path.join(folder, name)
    if os.path.isfile(f"{base}.py") or os.path.isfile(os.path.join(base, "__init__.py")):
        return True
    return os.path.isdir(base) and any(file.endswith(".py") for _, _, files in os.walk(base) for file in files)
