"""Finds code that may have another result each time a DAG file is imported: a process that shares one import with others
must not contain such a file."""

from __future__ import annotations

import ast
import warnings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

# Functions and attributes whose values may differ each time, by any module; and code that this check cannot read.
NAMES = frozenset((
    "Faker", "NamedTemporaryFile", "Random", "RandomState", "SystemRandom", "TemporaryDirectory", "__import__", "clock_gettime",
    "ctime", "days_ago", "default_rng", "eval", "exec", "exists", "formatdate", "get_parsing_context", "getatime", "getctime",
    "getloadavg", "getmtime", "getpid", "getppid", "getsize", "import_module", "is_dir", "is_file", "isdir", "isfile", "lexists",
    "lstat", "mkdtemp", "mkstemp", "monotonic", "now", "rand", "randint", "randn", "random", "run_module", "run_path", "stat",
    "times", "today", "tomorrow", "urandom", "utcnow", "yesterday",
))
# Modules of which every function is such.
MODULES = frozenset(("numpy.random", "random", "secrets", "time", "uuid"))
# Arguments whose functions run in the task.
CALLED_LATER = frozenset(("execute_callable", "poke_callable", "python_callable"))
CALLED_LATER_PREFIXES = ("on_", "pre_execute", "post_execute", "sla_miss", "user_defined_")
# Decorators of functions that run as tasks.
TASKS = frozenset(("setup", "task", "teardown"))


def may_differ(sources: Iterable[str]) -> bool:
    """True if the import of these sources together may have another result each time. Follows calls by the names of
    functions and methods; functions of tasks do not run at import."""
    try:
        return Check().differs(list(trees_of(sources)))
    except RecursionError:
        return True


def trees_of(sources):
    with warnings.catch_warnings():
        # The import shows them.
        warnings.simplefilter("ignore")
        for source in sources:
            try:
                yield ast.parse(source)
            except (SyntaxError, ValueError):
                # It cannot run either.
                pass


class Check(ast.NodeVisitor):
    def __init__(self):
        # Functions by name, each with the names of its file that come from MODULES; and the names of those functions that
        # are called at import.
        self.functions, self.called = {}, set()
        self.from_modules = set()
        self.found = False

    def differs(self, trees):
        names = [self.collect(tree) for tree in trees]
        for tree, from_modules in zip(trees, names, strict=True):
            self.visit_all(tree.body, from_modules)
        while self.called and not self.found:
            for node, from_modules in self.functions.pop(self.called.pop(), ()):
                self.visit_all(node.body, from_modules)
        return self.found

    def collect(self, tree):
        """Notes the functions of a file; returns its names that come from MODULES."""
        from_modules = set()
        for node in ast.walk(tree):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and not any(map(makes_task, node.decorator_list)):
                self.functions.setdefault(node.name, []).append((node, from_modules))
            elif isinstance(node, ast.ClassDef):
                # Creating and using an object calls its special methods.
                special = (item for item in node.body if getattr(item, "name", "").startswith("__"))
                self.functions.setdefault(node.name, []).extend((item, from_modules) for item in special)
            elif isinstance(node, ast.Import):
                from_modules.update(alias.asname or alias.name.partition(".")[0] for alias in node.names if alias.name in MODULES)
            elif isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    if node.module in MODULES and alias.name == "*":
                        self.found = True
                    elif node.module in MODULES or alias.name in NAMES or f"{node.module}.{alias.name}" in MODULES:
                        from_modules.add(alias.asname or alias.name)
        return from_modules

    def visit_all(self, nodes, from_modules):
        self.from_modules = from_modules
        for node in nodes:
            self.visit(node)

    def visit_FunctionDef(self, node):  # noqa: N802
        # Its body runs when it is called.
        for part in (*node.decorator_list, *node.args.defaults, *filter(None, node.args.kw_defaults)):
            self.visit(part)

    visit_AsyncFunctionDef = visit_FunctionDef  # noqa: N815

    def visit_keyword(self, node):
        self.visit_value(node.arg, node.value)

    def visit_Dict(self, node):  # noqa: N802
        # Such as `default_args`.
        for key, value in zip(node.keys, node.values, strict=True):
            if key is not None:
                self.visit(key)
            self.visit_value(getattr(key, "value", None), value)

    def visit_value(self, name, value):
        """Visits the value of an argument. A function that only the task calls is not followed."""
        is_called_later = isinstance(name, str) and (name in CALLED_LATER or name.startswith(CALLED_LATER_PREFIXES))
        values = value.elts if isinstance(value, (ast.List, ast.Tuple)) else [value]
        for one in values:
            if not is_called_later or not isinstance(one, (ast.Name, ast.Attribute, ast.Lambda)):
                self.visit(one)

    def visit_Name(self, node):  # noqa: N802
        # A function that is passed on may be called.
        self.use(node.id)
        self.found |= node.id in self.from_modules

    def visit_Attribute(self, node):  # noqa: N802
        self.use(node.attr)
        self.visit(node.value)

    def visit_Constant(self, node):  # noqa: N802
        # As in `getattr(datetime, "now")`.
        self.found |= isinstance(node.value, str) and node.value in NAMES

    def use(self, name):
        self.found |= name in NAMES
        if name in self.functions:
            self.called.add(name)


def makes_task(decorator):
    """True for `@task`, `@task.sensor(…)`, `@sdk.task` and the like."""
    names = set()
    while isinstance(decorator, (ast.Call, ast.Attribute)):
        if isinstance(decorator, ast.Attribute):
            names.add(decorator.attr)
        decorator = decorator.func if isinstance(decorator, ast.Call) else decorator.value
    return not TASKS.isdisjoint({*names, getattr(decorator, "id", None)})
