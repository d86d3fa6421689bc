"""Airflow's modules, for DAG files without an installed Airflow. `leoflow/names.py` lists the names; modules are
created on import, and names are resolved on access."""

import importlib.machinery
import sys

from leoflow.common import airflow_version
from leoflow.common.exceptions import unsupported_name
from leoflow.common.hints.packages import package_names
from leoflow.names import MODULES, is_misspelt, make_getattr


class _Modules:
    """Finder and loader for the modules below `airflow`. Raises Unsupported for a module that the small package
    lacks."""

    def find_spec(self, name, path=None, target=None):
        if not name.startswith("airflow."):
            return None
        if name not in MODULES and is_misspelt(name):
            return None
        if name not in MODULES and not any(module.startswith(f"{name}.") for module in package_names()):
            raise unsupported_name(f"the module {name}")
        return importlib.machinery.ModuleSpec(name, self, is_package=True)

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        # A parent of provider packages, such as `airflow.providers.apache`, stays empty.
        if module.__name__ in MODULES:
            module.__all__ = sorted(MODULES[module.__name__])
            module.__getattr__ = make_getattr(module.__name__)
        if module.__name__ == "airflow.sdk":
            module.__version__ = airflow_version.sdk_version


sys.meta_path.insert(0, _Modules())

__version__ = airflow_version.version
__all__ = sorted(MODULES["airflow"])
__getattr__ = make_getattr("airflow")
