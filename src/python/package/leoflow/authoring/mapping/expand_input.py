"""The input of a mapped task or task group: the arguments of `expand()` or `expand_kwargs()`.

<https://airflow.apache.org/docs/apache-airflow/stable/authoring-and-scheduling/dynamic-task-mapping.html>
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from leoflow.authoring.mapping.xcom_arg import RETURN, Argument, MappedArgument, XComArg, operators_in, resolve

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def is_literal(value):
    return isinstance(value, (Sequence, Mapping)) and not isinstance(value, (str, bytes))


def check_mappable(where: str, kwargs: dict[str, Any]) -> None:
    for name, value in kwargs.items():
        if isinstance(value, XComArg) and value.key != RETURN:
            raise ValueError(f"cannot map over XCom with custom key {value.key!r} from {value.operator}")
        if not isinstance(value, Argument) and not is_literal(value):
            raise ValueError(f"{where} got an unexpected type {type(value).__name__!r} for keyword argument {name}")


def check_list_of_dicts(kwargs: Any) -> None:
    if isinstance(kwargs, Argument):
        return
    if not isinstance(kwargs, Sequence) or isinstance(kwargs, (str, bytes)):
        raise TypeError(f"expected XComArg or list[dict], not {type(kwargs).__name__}")
    for element in kwargs:
        if not isinstance(element, (Mapping, Argument)):
            raise TypeError(f"expected XComArg or list[dict], not list[{type(element).__name__}]")


def refuse_nested(expand_input: DictOfLists | ListOfDicts) -> None:
    if any(isinstance(value, MappedArgument) for value in expand_input.values()):
        raise ValueError("Nested Mapped TaskGroups are not yet supported")


class DictOfLists:
    """`expand(a=…, b=…)`: the Cartesian product, in which the last argument varies fastest."""

    def __init__(self, kwargs):
        self.kwargs = kwargs

    def values(self):
        return list(self.kwargs.values())

    def operators(self):
        return list(dict.fromkeys(operators_in(list(self.kwargs.values()))))

    def length(self):
        """Returns an expression from which the scheduler computes the number of elements."""
        return {"product": [length_of(value) for value in self.kwargs.values()]}

    def resolve(self, context, index):
        """Returns the arguments of the element at `index`."""
        inputs = {
            name: value.resolve(context) if isinstance(value, Argument) else value for name, value in self.kwargs.items()
        }
        element = {}
        for name in reversed(list(inputs)):
            values = inputs[name]
            position = index % max(len(values), 1)
            index //= max(len(values), 1)
            element[name] = list(values.items())[position] if isinstance(values, Mapping) else values[position]
        return {name: resolve(element[name], context) for name in inputs}


class ListOfDicts:
    """`expand_kwargs([{…}, {…}])`: the arguments of each element as a dict."""

    def __init__(self, dicts):
        self.dicts = dicts

    def values(self):
        return [self.dicts]

    def operators(self):
        return list(dict.fromkeys(operators_in(self.dicts)))

    def length(self):
        return length_of(self.dicts)

    def resolve(self, context, index):
        values = self.dicts.resolve(context) if isinstance(self.dicts, Argument) else self.dicts
        if isinstance(values, (str, bytes)) or not isinstance(values, Sequence):
            raise ValueError(f"expand_kwargs() expects a list[dict], not {type(values).__name__}")
        element = values[index]
        element = element.resolve(context) if isinstance(element, Argument) else element
        if not isinstance(element, Mapping):
            raise ValueError(f"expand_kwargs() expects a list[dict], not list[{type(element).__name__}]")
        for name in element:
            if not isinstance(name, str):
                raise ValueError(f"expand_kwargs() input dict keys must all be str, but {name!r} is of type {type(name).__name__}")
        return {name: resolve(value, context) for name, value in element.items()}


def length_of(value):
    return value.length() if isinstance(value, Argument) else len(value)
