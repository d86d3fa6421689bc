"""Params: typed configuration values of a run, each with a JSON schema.

<https://airflow.apache.org/docs/apache-airflow/stable/core-concepts/params.html>

The server validates values against their schemas, when a file is parsed and when a run is triggered. This module checks
only that a value is present and is JSON.
"""

import json
from collections.abc import MutableMapping

from leoflow.common.exceptions import AirflowException, ParamValidationError

_MISSING = object()


class Param:
    def __init__(self, default=_MISSING, description=None, source=None, **schema):
        if default is not _MISSING:
            check_json(default)
        self.value = default
        self.description = description
        self.source = source
        self.schema = schema.pop("schema") if "schema" in schema else schema
        try:
            json.dumps(self.schema, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ParamValidationError(f"The schema of a Param has to be JSON: {error}") from None

    @property
    def has_value(self):
        return self.value is not _MISSING and self.value is not None

    def resolve(self, value=_MISSING, suppress_exception=False):
        resolved = self.value if value is _MISSING else value
        if resolved is _MISSING:
            if suppress_exception:
                return None
            raise ParamValidationError("No value passed and Param has no default value")
        self.value = resolved
        return resolved

    def dump(self):
        return {"value": None if self.value is _MISSING else self.value, "description": self.description,
                "schema": self.schema, "source": self.source}

    def to_structure(self):
        description = {"schema": self.schema, "description": self.description}
        return description if self.value is _MISSING else {**description, "value": self.value}

    def __eq__(self, other):
        return isinstance(other, Param) and self.to_structure() == other.to_structure()

    __hash__ = None


def check_json(value):
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        raise ParamValidationError(
            f"All provided parameters must be json-serializable. The value '{value}' is not serializable."
        ) from None


class ParamsDict(MutableMapping):
    """The params of a DAG, a task or a run by name; indexing returns their values."""

    def __init__(self, values=None, suppress_exception=False):
        self._params = {}
        for name, value in (values or {}).items():
            if not isinstance(name, str):
                raise AirflowException(f"the name of a param must be a string, not {name!r}")
            try:
                self._params[name] = value if isinstance(value, Param) else Param(value)
            except ParamValidationError as error:
                raise ParamValidationError(f"param {name!r}: {error}") from None

    def __getitem__(self, name):
        return self._params[name].resolve()

    def all_params(self):
        return dict(self._params)

    def get_param(self, name):
        return self._params[name]

    def __setitem__(self, name, value):
        if isinstance(value, Param):
            self._params[name] = value
        elif name in self._params:
            check_json(value)
            self._params[name].resolve(value)
        else:
            self._params[name] = Param(value)

    def __delitem__(self, name):
        del self._params[name]

    def __iter__(self):
        return iter(self._params)

    def __len__(self):
        return len(self._params)

    def dump(self):
        return {name: param.resolve(suppress_exception=True) for name, param in self._params.items()}

    def to_structure(self):
        return {name: param.to_structure() for name, param in self._params.items()}

    def are_valid(self):
        """True when every param has a value; schemas are not checked."""
        return all(param.value is not _MISSING for param in self._params.values())

    def update(self, *args, **kwargs):
        values = dict(*args, **kwargs) if not args or not isinstance(args[0], ParamsDict) else args[0]._params
        for name, value in values.items():
            self[name] = value

    def __repr__(self):
        return repr(self.dump())
