"""Imports of Airflow 2: the modules that Airflow 3 removed exist, and their names are their successors."""

from __future__ import annotations

import importlib
import importlib.machinery
import sys

from leoflow.airflow_2 import replacements
from leoflow.common.hints import airflow_2

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType
    from typing import Any


def install() -> None:
    # The small package installs a finder of its own when it is imported.
    importlib.import_module("airflow.utils")
    finder = Finder({**airflow_2.moved(), **airflow_2.moved_names()})
    sys.meta_path.insert(0, finder)
    for name in finder.names.keys() & sys.modules.keys():
        add_names(sys.modules[name], finder.names[name])


def is_translated(name: str) -> bool:
    """True for a removed module or name that `install` makes available, and for a name that exists."""
    if successor := airflow_2.successor_of(name):
        return successor not in airflow_2.missing()
    is_module = name in airflow_2.moved() or any(other.startswith(f"{name}.") for other in replacements.NAMES)
    return is_module or name in replacements.NAMES or airflow_2.removed_name(name, advice=None) is None


def needed_for(name: str) -> set[str]:
    """Returns the modules of Airflow 3 that have what replaces a removed module or name."""
    last = name.rpartition(".")[2]
    successors = [airflow_2.successor_of(name)] if airflow_2.successor_of(name) else airflow_2.moved().get(name, {}).values()
    needed = {successor.rpartition(".")[0] for successor in successors}
    if last in replacements.SQL_OPERATORS:
        needed.add(replacements.SQL_OPERATORS[last][1])
    return needed


class Finder:
    """Finder and loader for the modules with removed names. A module that still exists gets the names in addition."""

    def __init__(self, successors: dict[str, dict[str, str]]):
        own = {name: f"{replacements.__name__}.{name}" for name in replacements.SQL_OPERATORS}
        self.names = {module: {name: own.get(name, successor) for name, successor in names.items()} for module, names in successors.items()}
        for name in replacements.NAMES:
            module, _, last = name.rpartition(".")
            self.names.setdefault(module, {})[last] = f"{replacements.__name__}.{last}"
        for module in list(self.names):
            self.add_parents(module)

    def add_parents(self, module):
        """Makes a removed module an attribute of its package, which may be a removed one, too."""
        package, _, last = module.rpartition(".")
        # A provider that is not installed stays missing.
        if package and (not module.startswith("airflow.providers.") or package.endswith(".operators")):
            self.names.setdefault(package, {}).setdefault(last, f"{module}:")
            self.add_parents(package)

    def find_spec(self, name, path=None, target=None):
        if name not in self.names:
            return None
        spec = spec_of_others(self, name, path, target)
        if spec is None:
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        if spec.loader is not None:
            spec.loader = AddingLoader(spec.loader, self.names[name])
        return spec

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        names = self.names[module.__name__]
        module.__all__ = sorted(names)
        add_names(module, names)


def spec_of_others(own, name, path, target):
    for finder in sys.meta_path:
        if finder is own:
            continue
        try:
            spec = finder.find_spec(name, path, target)
        except ImportError:
            # The small package refuses what Airflow 3 removed.
            spec = None
        if spec is not None:
            return spec
    return None


class AddingLoader:
    """Loads a module with another loader, and adds names to it."""

    def __init__(self, loader: Any, names: dict[str, str]):
        self._loader = loader
        self._names = names

    def __getattr__(self, name):
        return getattr(self._loader, name)

    def exec_module(self, module):
        self._loader.exec_module(module)
        add_names(module, self._names)


def add_names(module: ModuleType, names: dict[str, str]) -> None:
    """Makes names available as attributes of a module that lacks them; each is imported on first access."""
    original = vars(module).get("__getattr__")

    def get_attribute(name: str) -> Any:
        if name in names:
            value = imported(names[name], f"{module.__name__}.{name}")
            setattr(module, name, value)
            return value
        if original is not None:
            return original(name)
        raise AttributeError(f"module {module.__name__!r} has no attribute {name!r}")

    module.__getattr__ = get_attribute


def imported(successor, old):
    """A successor with a colon at its end is a module."""
    if successor.endswith(":"):
        return importlib.import_module(successor[:-1])
    module_name, _, name = successor.rpartition(".")
    # `importlib.import_module` would be the innermost frame of its errors, which name the user's line.
    module = __import__(module_name, fromlist=[name])
    try:
        return getattr(module, name)
    except AttributeError:
        text = f"{old} of Airflow 2 became {successor}, which the installed version of its package lacks"
        raise ImportError(text, name=module_name) from None
