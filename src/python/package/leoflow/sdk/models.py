"""Messages in the models of the SDK that is installed: what its version does not know of a message is left out."""

from __future__ import annotations

import functools
import typing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def make(name: str, /, **fields: Any) -> Any:
    """The model of that name in `comms`. Dicts become models where the field wants one; lists of them too."""
    from airflow.sdk.execution_time import comms

    return of_kind(getattr(comms, name), fields)


def of_kind(kind: type, fields: dict[str, Any]) -> Any:
    known = known_fields(kind)
    return kind(**{name: fit(known[name], value) for name, value in fields.items() if name in known})


@functools.cache
def known_fields(kind):
    """By the names that they are given by, each with the model that it is made of, if it is one."""
    return {field.alias or name: model_in(field.annotation) for name, field in kind.model_fields.items()}


def model_in(annotation):
    import pydantic

    for one in (annotation, *typing.get_args(annotation)):
        if isinstance(one, type) and issubclass(one, pydantic.BaseModel):
            return one
        for inner in typing.get_args(one):
            if isinstance(inner, type) and issubclass(inner, pydantic.BaseModel):
                return inner
    return None


def fit(model, value):
    if model is not None and isinstance(value, dict):
        return of_kind(model, value)
    if model is not None and isinstance(value, list):
        return [fit(model, one) for one in value]
    return value
