"""Compares `leoflow.common.signatures` with `inspect`, for every kind of callable and many calls of each."""

import functools
import inspect
import itertools
import sys

sys.path.insert(0, sys.argv[1])
from leoflow.common import signatures


class Callable:
    def __init__(self, a, b=1):
        pass

    def __call__(self, a, *, key=2):
        pass

    def method(self, a, **others):
        pass

    @classmethod
    def of_class(cls, a):
        pass

    @staticmethod
    def of_none(a, b):
        pass


def plain(a, b=1, *rest, key, other=3, **others):
    local = a
    return local


def by_place(a, b=1, /, c=2):
    pass


def same_name(a, /, **a_too):
    pass


def by_keyword(*, key, b=None):
    pass


def nothing():
    pass


async def coroutine(a, key=1):
    pass


def generator(a):
    yield a


@functools.wraps(plain)
def wrapper(*args, **kwargs):
    pass


def told(*args):
    pass


told.__signature__ = inspect.signature(by_place)
FUNCTIONS = [
    plain, by_place, same_name, by_keyword, nothing, coroutine, generator, wrapper, told, lambda a, *b: a, Callable,
    Callable(1), Callable(1).method, Callable.method, Callable.of_class, Callable.of_none, functools.partial(plain, 1),
    functools.partial(by_place, c=5), functools.lru_cache(by_keyword), len, sorted, divmod,
]
count = 0
for function in FUNCTIONS:
    wanted = inspect.signature(function)
    found = signatures.parameters(function)
    assert [(one.name, one.kind, one.default is one.empty) for one in found.values()] == [
        (one.name, int(one.kind), one.default is one.empty) for one in wanted.parameters.values()
    ], function
    for one in found.values():
        assert one.default is one.empty or one.default is wanted.parameters[one.name].default, function
    names = ["a", "b", "key", "c", "unknown"]
    for places in range(4):
        for some in itertools.chain.from_iterable(itertools.combinations(names, n) for n in range(5)):
            args, kwargs = (0,) * places, dict.fromkeys(some, 0)
            answers = []
            for call in (lambda: wanted.bind(*args, **kwargs), lambda: signatures.check_call(function, args, kwargs)):
                try:
                    call()
                    answers.append(None)
                except TypeError as error:
                    answers.append(str(error))
            assert answers[0] == answers[1], (function, args, kwargs, answers)
            count += 1
for nonsense in (5, None):
    try:
        signatures.parameters(nonsense)
    except TypeError:
        continue
    raise AssertionError(nonsense)
print(f"{count} calls compared")
