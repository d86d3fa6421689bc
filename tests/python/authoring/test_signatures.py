"""Compares the results of `signatures.py`, which avoids the slow import of `inspect`, with those of `inspect`."""

import functools
import inspect
import itertools
import unittest

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


def positional(a, b=1, /, c=2):
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


def with_signature(*args):
    pass


with_signature.__signature__ = inspect.signature(positional)
FUNCTIONS = [
    plain, positional, same_name, by_keyword, nothing, coroutine, generator, wrapper, with_signature, lambda a, *b: a, Callable,
    Callable(1), Callable(1).method, Callable.method, Callable.of_class, Callable.of_none, functools.partial(plain, 1),
    functools.partial(positional, c=5), functools.lru_cache(by_keyword), len, sorted, divmod,
]
NAMES = ["a", "b", "key", "c", "unknown"]


def calls():
    """Yields many combinations of positional and keyword arguments."""
    for count in range(4):
        for some in itertools.chain.from_iterable(itertools.combinations(NAMES, n) for n in range(5)):
            yield (0,) * count, dict.fromkeys(some, 0)


def problem(call, *args):
    try:
        call(*args)
    except TypeError as error:
        return str(error)
    return None


class Signatures(unittest.TestCase):
    def test_parameters_equal_those_of_inspect(self):
        for function in FUNCTIONS:
            with self.subTest(function=function):
                expected = inspect.signature(function).parameters.values()
                found = signatures.parameters(function).values()
                self.assertEqual(
                    [(parameter.name, parameter.kind, parameter.default is parameter.empty) for parameter in found],
                    [(parameter.name, int(parameter.kind), parameter.default is parameter.empty) for parameter in expected],
                )
                for parameter, expected_parameter in zip(found, expected, strict=True):
                    self.assertTrue(parameter.default is parameter.empty or parameter.default is expected_parameter.default)

    def test_refuses_the_same_calls_with_the_same_errors(self):
        for function in FUNCTIONS:
            bind = inspect.signature(function).bind
            for args, kwargs in calls():
                with self.subTest(function=function, args=args, kwargs=kwargs):
                    found = problem(signatures.check_call, function, args, kwargs)
                    self.assertEqual(found, problem(lambda: bind(*args, **kwargs)))  # noqa: B023

    def test_a_non_callable_is_a_type_error(self):
        for nonsense in (5, None):
            with self.assertRaises(TypeError):
                signatures.parameters(nonsense)
