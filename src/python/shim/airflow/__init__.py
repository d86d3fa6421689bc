"""Airflow's import paths, for DAG files where Airflow itself is not installed."""

import importlib.abc
import sys

from leoflow._dag import DAG
from leoflow._errors import Unsupported, refuse

__all__ = ["DAG"]


class _Missing(importlib.abc.MetaPathFinder):
    """Comes last: a module of Airflow that nothing else has found is one that we do not have."""

    def find_spec(self, name, path=None, target=None):
        if name.startswith("airflow."):
            raise Unsupported(f"the module {name}")
        return None


sys.meta_path.append(_Missing())

__getattr__ = refuse(__name__, __path__)
