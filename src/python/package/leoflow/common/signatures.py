"""Reads the signatures of callables, with the same results as `inspect.signature`. Ordinary functions are read without
`inspect`, whose import takes longer than parsing most DAG files; `inspect` reads other callables."""

from __future__ import annotations

import types

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

# The values of `inspect.Parameter.kind`.
POSITIONAL_ONLY, POSITIONAL_OR_KEYWORD, VAR_POSITIONAL, KEYWORD_ONLY, VAR_KEYWORD = range(5)


class Parameter:
    __slots__ = ("name", "kind", "default")

    class empty:
        """No default."""

    def __init__(self, name, kind, default=empty):
        self.name = name
        self.kind = kind
        self.default = default

    @property
    def is_required(self):
        return self.default is self.empty and self.kind not in (VAR_POSITIONAL, VAR_KEYWORD)


def parameters(function: Callable) -> dict[str, Parameter]:
    """Returns a function's parameters by name, in order. Raises TypeError and ValueError like `inspect.signature`."""
    ordinary = unwrapped(function)
    if ordinary is not None:
        return code_parameters(ordinary)
    import inspect

    inspected = inspect.signature(function).parameters.values()
    return {
        parameter.name: Parameter(
            parameter.name, int(parameter.kind), Parameter.empty if parameter.default is parameter.empty else parameter.default)
        for parameter in inspected
    }


def check_call(function: Callable, args: tuple, kwargs: dict[str, Any]) -> None:
    """Raises TypeError if the function cannot be called with these arguments."""
    if not fits(parameters(function).values(), args, kwargs):
        import inspect

        # Raises the TypeError with inspect's message.
        inspect.signature(function).bind(*args, **kwargs)


def unwrapped(function):
    """Returns the ordinary function behind any wrappers; None for a callable that only `inspect` can read."""
    seen = set()
    while type(function) is types.FunctionType and "__signature__" not in function.__dict__:
        if "__wrapped__" not in function.__dict__:
            return function
        if id(function) in seen:
            return None
        seen.add(id(function))
        function = function.__wrapped__
    return None


def code_parameters(function):
    """Reads the parameters of an ordinary function from its code object."""
    code = function.__code__
    positional = code.co_argcount
    names = code.co_varnames
    defaults = function.__defaults__ or ()
    # Defaults belong to the last positional parameters.
    first_with_default = positional - len(defaults)
    parameters_by_name = {}
    for index in range(positional):
        kind = POSITIONAL_ONLY if index < code.co_posonlyargcount else POSITIONAL_OR_KEYWORD
        default = defaults[index - first_with_default] if index >= first_with_default else Parameter.empty
        parameters_by_name[names[index]] = Parameter(names[index], kind, default)
    next_index = positional + code.co_kwonlyargcount
    # The bit inspect.CO_VARARGS: the function has *args.
    if code.co_flags & 0x04:
        parameters_by_name[names[next_index]] = Parameter(names[next_index], VAR_POSITIONAL)
        next_index += 1
    keyword_defaults = function.__kwdefaults__ or {}
    for name in names[positional:positional + code.co_kwonlyargcount]:
        parameters_by_name[name] = Parameter(name, KEYWORD_ONLY, keyword_defaults.get(name, Parameter.empty))
    # The bit inspect.CO_VARKEYWORDS: the function has **kwargs.
    if code.co_flags & 0x08:
        parameters_by_name[names[next_index]] = Parameter(names[next_index], VAR_KEYWORD)
    return parameters_by_name


def fits(expected, args, kwargs):
    """True when a call with these arguments matches the parameters."""
    expected = list(expected)
    kinds = {parameter.kind for parameter in expected}
    positional = [parameter for parameter in expected if parameter.kind in (POSITIONAL_ONLY, POSITIONAL_OR_KEYWORD)]
    if len(args) > len(positional) and VAR_POSITIONAL not in kinds:
        return False
    given_names = {parameter.name for parameter in positional[: len(args)]}
    keyword_names = {parameter.name for parameter in expected if parameter.kind in (POSITIONAL_OR_KEYWORD, KEYWORD_ONLY)}
    unknown = [name for name in kwargs if name not in keyword_names]
    if unknown and VAR_KEYWORD not in kinds or any(name in given_names for name in kwargs if name in keyword_names):
        return False
    required = [parameter.name for parameter in expected if parameter.is_required]
    return all(name in given_names or name in kwargs and name in keyword_names for name in required)
