"""The layers of the package: which may import which, and annotations of functions used across modules."""

import ast
import unittest
from pathlib import Path

import leoflow

PACKAGE = Path(leoflow.__file__).parent
# From the bottom up; `names` stands beside them and knows only the exceptions.
LAYERS = ["common", "authoring", "running", "sdk", "entry"]


def modules():
    for path in sorted(PACKAGE.rglob("*.py")):
        yield ".".join(("leoflow", *path.relative_to(PACKAGE).with_suffix("").parts)), ast.parse(path.read_text())


MODULES = dict(modules())


def nodes(tree):
    """Yields all nodes outside TYPE_CHECKING blocks."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            continue
        waiting.extend(ast.iter_child_nodes(node))


def imported(tree):
    """Yields pairs of a module of the package and an imported name, or None for the module itself."""
    for node in nodes(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("leoflow"):
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield (whole, None) if whole in MODULES else (node.module, alias.name)


def layer(module):
    return module.split(".")[1]


class Layers(unittest.TestCase):
    def test_imports_point_down(self):
        for module, tree in MODULES.items():
            for other, _ in imported(tree):
                if layer(module) in LAYERS and layer(other) in LAYERS:
                    self.assertGreaterEqual(LAYERS.index(layer(module)), LAYERS.index(layer(other)), f"{module} uses {other}")

    def test_there_is_no_import_cycle(self):
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

    def test_functions_used_across_modules_are_annotated(self):
        crossing = {pair for tree in MODULES.values() for pair in imported(tree)}
        seen = 0
        for module, tree in MODULES.items():
            for node in tree.body:
                if isinstance(node, ast.FunctionDef) and (module, node.name) in crossing:
                    seen += 1
                    arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
                    bare = [argument.arg for argument in arguments if argument.annotation is None]
                    self.assertFalse(bare or node.returns is None, f"{module}.{node.name}: {bare}")
        self.assertGreater(seen, 50)

    def test_files_are_short(self):
        for path in PACKAGE.rglob("*.py"):
            self.assertLess(len(path.read_text().splitlines()), 400, path)
