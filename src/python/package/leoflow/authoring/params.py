"""Params: values that a run can be given, with the schema that they have to fit.

<https://airflow.apache.org/docs/apache-airflow/stable/core-concepts/params.html>

Whether a value fits is looked at in Rust, where a run is triggered and where a file is parsed. Here is
what needs no schema: that there is a value at all.
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
        found = self.value if value is _MISSING else value
        if found is _MISSING:
            if suppress_exception:
                return None
            raise ParamValidationError("No value passed and Param has no default value")
        self.value = found
        return found

    def dump(self):
        return {"value": None if self.value is _MISSING else self.value, "description": self.description,
                "schema": self.schema, "source": self.source}

    def described(self):
        whole = {"schema": self.schema, "description": self.description}
        return whole if self.value is _MISSING else {**whole, "value": self.value}

    def __eq__(self, other):
        return isinstance(other, Param) and self.described() == other.described()

    __hash__ = None


def check_json(value):
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        raise ParamValidationError(
            f"All provided parameters must be json-serializable. The value '{value}' is not serializable."
        ) from None


class ParamsDict(MutableMapping):
    def __init__(self, given=None, suppress_exception=False):
        self._params = {}
        for name, value in (given or {}).items():
            if not isinstance(name, str):
                raise AirflowException(f"param {name!r} has a name that is no text")
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
        return {name: one.resolve(suppress_exception=True) for name, one in self._params.items()}

    def described(self):
        return {name: one.described() for name, one in self._params.items()}

    def are_valid(self):
        """As far as it can be seen without looking at the schemas."""
        return all(one.value is not _MISSING for one in self._params.values())

    def update(self, *args, **kwargs):
        given = dict(*args, **kwargs) if not args or not isinstance(args[0], ParamsDict) else args[0]._params
        for name, value in given.items():
            self[name] = value

    def __repr__(self):
        return repr(self.dump())
