"""The layers of the package: which layers a module may import, and annotations of functions used across modules."""

import ast
import unittest
from pathlib import Path

import leoflow
from leoflow.entry.warm import zygote
from leoflow.sdk.warm import preload

PACKAGE = Path(leoflow.__file__).parent
# From the bottom up. `names` belongs to no layer and imports only the exceptions.
LAYERS = ["common", "authoring", "running", "airflow_2", "sdk", "entry", "survey", "outside"]
LARGEST_FOLDER = 20


def modules():
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        yield ".".join(("leoflow", *(part for part in parts if part != "__init__"))), ast.parse(path.read_text())


MODULES = dict(modules())


def imported(tree, known=MODULES):
    """Yields a pair of module and imported name (None for the module itself) for each import of a module of the
    package: at the top level, inside a function, or only for annotations."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names if alias.name.partition(".")[0] == "leoflow")
        elif isinstance(node, ast.ImportFrom) and (node.level or (node.module or "").partition(".")[0] == "leoflow"):
            for alias in node.names:
                whole = f"{'.' * node.level}{node.module or ''}.{alias.name}"
                yield (whole, None) if whole in known else (whole.rpartition(".")[0], alias.name)


def cycle_in(uses):
    """Returns a path of modules that ends with the module where it begins, or None."""
    done = set()

    def follow(module, path):
        if module in path:
            return [*path[path.index(module):], module]
        if module not in done:
            for other in sorted(uses.get(module, ())):
                cycle = follow(other, [*path, module])
                if cycle:
                    return cycle
            done.add(module)
        return None

    return next(filter(None, (follow(module, []) for module in uses)), None)


def uses_of(trees):
    return {module: {other for other, _ in imported(tree, trees)} - {module} for module, tree in trees.items()}


def layer(module):
    return [*module.split("."), ""][1]


class Layers(unittest.TestCase):
    def test_every_import_names_a_module(self):
        for module, tree in MODULES.items():
            for other, _ in imported(tree):
                self.assertIn(other, MODULES, f"{module} imports a folder, or relatively")

    def test_imports_point_down(self):
        for module, tree in MODULES.items():
            for other, _ in imported(tree):
                if layer(module) in LAYERS and layer(other) in LAYERS:
                    self.assertGreaterEqual(LAYERS.index(layer(module)), LAYERS.index(layer(other)), f"{module} uses {other}")

    def test_there_is_no_import_cycle(self):
        uses = uses_of(MODULES)
        self.assertGreater(len(uses), 80)
        cycle = cycle_in(uses)
        self.assertIsNone(cycle, cycle and " -> ".join(cycle))

    def test_finds_a_cycle_of_any_kind_of_import(self):
        back = {
            "from": "from leoflow.common.a import x", "module": "from leoflow.common import a", "import": "import leoflow.common.a",
            "late": "def f():\n    from leoflow.common.a import x",
            "in a method": "class C:\n    def f(self):\n        import leoflow.common.a as a",
            "annotation": "if TYPE_CHECKING:\n    from leoflow.common.a import X",
        }
        for kind, text in back.items():
            with self.subTest(kind):
                texts = {"leoflow.common.a": "from leoflow.common.b import y", "leoflow.common.b": text}
                trees = {module: ast.parse(text) for module, text in texts.items()}
                self.assertEqual(cycle_in(uses_of(trees)), ["leoflow.common.a", "leoflow.common.b", "leoflow.common.a"])

    def test_a_warm_python_preloads_modules_by_their_names(self):
        preloaded = {name for name in zygote.own_modules() if name.partition(".")[0] == "leoflow"}
        self.assertLessEqual({module for module in MODULES if layer(module) in ("common", "authoring", "running")}, preloaded)
        self.assertLessEqual(preloaded | {f"leoflow.sdk.{name}" for name in preload.OURS}, MODULES.keys())

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
            self.assertLess(len(path.read_text().splitlines()), 500, path)

    def test_folders_are_small(self):
        folders = [PACKAGE, *(path for path in PACKAGE.rglob("*") if path.is_dir())]
        for folder in folders:
            self.assertLessEqual(len(list(folder.glob("*.py"))), LARGEST_FOLDER, folder)
