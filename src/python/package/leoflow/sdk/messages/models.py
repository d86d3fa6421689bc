"""Creates messages with the models of the installed SDK. Omits fields that its version does not know."""

from __future__ import annotations

import functools
import typing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def make(name: str, /, **fields: Any) -> Any:
    """Creates a model of `comms` by name. Dicts, and lists of dicts, become models where the field requires them."""
    from airflow.sdk.execution_time import comms

    return build_model(getattr(comms, name), fields)


def build_model(kind: type, fields: dict[str, Any]) -> Any:
    known = known_fields(kind)
    return kind(**{name: fit(known[name], value) for name, value in fields.items() if name in known})


@functools.cache
def known_fields(kind):
    """Returns the fields of a model by alias or name, each with the model class of its value, or None."""
    return {field.alias or name: model_in(field.annotation) for name, field in kind.model_fields.items()}


def model_in(annotation):
    import pydantic

    for candidate in (annotation, *typing.get_args(annotation)):
        if isinstance(candidate, type) and issubclass(candidate, pydantic.BaseModel):
            return candidate
        for argument in typing.get_args(candidate):
            if isinstance(argument, type) and issubclass(argument, pydantic.BaseModel):
                return argument
    return None


def fit(model, value):
    if model is not None and isinstance(value, dict):
        return build_model(model, value)
    if model is not None and isinstance(value, list):
        return [fit(model, item) for item in value]
    return value
