"""What a function takes. As `inspect.signature` says it, which is asked about everything but ordinary
functions: importing it takes longer than most DAG files."""

from __future__ import annotations

import types

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

# As in inspect, whose kinds are the same numbers.
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
    """Of a function, by name, in their order. Raises TypeError and ValueError as inspect does."""
    plain = unwrapped(function)
    if plain is not None:
        return of_code(plain)
    import inspect

    found = inspect.signature(function).parameters.values()
    return {one.name: Parameter(one.name, int(one.kind), Parameter.empty if one.default is one.empty else one.default)
            for one in found}


def check_call(function: Callable, args: tuple, kwargs: dict[str, Any]) -> None:
    """Raises TypeError when it cannot be called with these."""
    if not fits(parameters(function).values(), args, kwargs):
        import inspect

        # It says what does not fit.
        inspect.signature(function).bind(*args, **kwargs)


def unwrapped(function):
    """The ordinary function behind a decorator's wrapper; None when there is something else."""
    seen = set()
    while type(function) is types.FunctionType and "__signature__" not in function.__dict__:
        if "__wrapped__" not in function.__dict__:
            return function
        if id(function) in seen:
            return None
        seen.add(id(function))
        function = function.__wrapped__
    return None


def of_code(function):
    code = function.__code__
    positional = code.co_argcount
    names = code.co_varnames
    defaults = function.__defaults__ or ()
    found = {}
    for at in range(positional):
        kind = POSITIONAL_ONLY if at < code.co_posonlyargcount else POSITIONAL_OR_KEYWORD
        first = positional - len(defaults)
        found[names[at]] = Parameter(names[at], kind, defaults[at - first] if at >= first else Parameter.empty)
    after = positional + code.co_kwonlyargcount
    if code.co_flags & 0x04:
        found[names[after]] = Parameter(names[after], VAR_POSITIONAL)
        after += 1
    by_keyword = function.__kwdefaults__ or {}
    for name in names[positional:positional + code.co_kwonlyargcount]:
        found[name] = Parameter(name, KEYWORD_ONLY, by_keyword.get(name, Parameter.empty))
    if code.co_flags & 0x08:
        found[names[after]] = Parameter(names[after], VAR_KEYWORD)
    return found


def fits(taken, args, kwargs):
    taken = list(taken)
    kinds = {one.kind for one in taken}
    by_place = [one for one in taken if one.kind in (POSITIONAL_ONLY, POSITIONAL_OR_KEYWORD)]
    if len(args) > len(by_place) and VAR_POSITIONAL not in kinds:
        return False
    given = {one.name for one in by_place[: len(args)]}
    by_name = {one.name for one in taken if one.kind in (POSITIONAL_OR_KEYWORD, KEYWORD_ONLY)}
    unknown = [name for name in kwargs if name not in by_name]
    if unknown and VAR_KEYWORD not in kinds or any(name in given for name in kwargs if name in by_name):
        return False
    return all(one.name in given or one.name in kwargs and one.name in by_name for one in taken if one.is_required)
