"""What functions take is found by hand, because importing `inspect` takes long: here it is compared with `inspect`."""

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
NAMES = ["a", "b", "key", "c", "unknown"]


def calls():
    """Arguments in many combinations, by place and by name."""
    for places in range(4):
        for some in itertools.chain.from_iterable(itertools.combinations(NAMES, n) for n in range(5)):
            yield (0,) * places, dict.fromkeys(some, 0)


def problem(call, *args):
    try:
        call(*args)
    except TypeError as error:
        return str(error)
    return None


class Signatures(unittest.TestCase):
    def test_says_what_functions_take_as_inspect_does(self):
        for function in FUNCTIONS:
            with self.subTest(function=function):
                wanted = inspect.signature(function).parameters.values()
                found = signatures.parameters(function).values()
                self.assertEqual(
                    [(one.name, one.kind, one.default is one.empty) for one in found],
                    [(one.name, int(one.kind), one.default is one.empty) for one in wanted],
                )
                for one, other in zip(found, wanted, strict=True):
                    self.assertTrue(one.default is one.empty or one.default is other.default)

    def test_refuses_the_calls_that_inspect_refuses_with_its_words(self):
        for function in FUNCTIONS:
            bind = inspect.signature(function).bind
            for args, kwargs in calls():
                with self.subTest(function=function, args=args, kwargs=kwargs):
                    found = problem(signatures.check_call, function, args, kwargs)
                    self.assertEqual(found, problem(lambda: bind(*args, **kwargs)))  # noqa: B023

    def test_what_is_no_function_is_a_type_error(self):
        for nonsense in (5, None):
            with self.assertRaises(TypeError):
                signatures.parameters(nonsense)
