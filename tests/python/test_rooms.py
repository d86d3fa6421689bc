"""How the package is built: which room uses which, and what crosses a module."""

import ast
import unittest
from pathlib import Path

import leoflow

PACKAGE = Path(leoflow.__file__).parent
# From the bottom up; `names` stands beside them and knows only the exceptions.
ROOMS = ["common", "authoring", "running", "sdk", "entry"]


def modules():
    for path in sorted(PACKAGE.rglob("*.py")):
        yield ".".join(("leoflow", *path.relative_to(PACKAGE).with_suffix("").parts)), ast.parse(path.read_text())


MODULES = dict(modules())


def nodes(tree):
    """All of it but what only type checkers read."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            continue
        waiting.extend(ast.iter_child_nodes(node))


def imported(tree):
    """Pairs of a module of the package and a name in it, or None where the module itself is meant."""
    for node in nodes(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("leoflow"):
            for one in node.names:
                whole = f"{node.module}.{one.name}"
                yield (whole, None) if whole in MODULES else (node.module, one.name)


def room(module):
    return module.split(".")[1]


class Rooms(unittest.TestCase):
    def test_arrows_point_down(self):
        for module, tree in MODULES.items():
            for other, _ in imported(tree):
                if room(module) in ROOMS and room(other) in ROOMS:
                    self.assertGreaterEqual(ROOMS.index(room(module)), ROOMS.index(room(other)), f"{module} uses {other}")

    def test_there_is_no_circle(self):
        uses = {module: {other for other, _ in imported(tree)} - {module} for module, tree in MODULES.items()}
        done, path = set(), []

        def follow(module):
            self.assertNotIn(module, path, " -> ".join([*path, module]))
            if module in done or module not in uses:
                return
            path.append(module)
            for other in sorted(uses[module]):
                follow(other)
            path.pop()
            done.add(module)

        for module in uses:
            follow(module)
        self.assertGreater(len(done), 40)

    def test_what_crosses_a_module_says_what_it_takes_and_gives(self):
        crossing = {pair for tree in MODULES.values() for pair in imported(tree)}
        seen = 0
        for module, tree in MODULES.items():
            for node in tree.body:
                if isinstance(node, ast.FunctionDef) and (module, node.name) in crossing:
                    seen += 1
                    arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
                    bare = [one.arg for one in arguments if one.annotation is None]
                    self.assertFalse(bare or node.returns is None, f"{module}.{node.name}: {bare}")
        self.assertGreater(seen, 50)

    def test_files_are_short(self):
        for path in PACKAGE.rglob("*.py"):
            self.assertLess(len(path.read_text().splitlines()), 400, path)
