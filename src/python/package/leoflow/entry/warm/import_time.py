"""Finds code that may have another result each time a DAG file is imported: a process that shares one import with others
must not contain such a file."""

from __future__ import annotations

import ast

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

# Functions whose results differ each time, by any module; and modules of which every function does.
NAMES = frozenset((
    "clock_gettime", "days_ago", "get_parsing_context", "getmtime", "getpid", "now", "stat", "today", "tomorrow", "urandom", "utcnow",
    "yesterday",
))
MODULES = frozenset(("random", "secrets", "time", "uuid"))
# Arguments whose functions run in the task, and methods that do.
CALLED_LATER = frozenset(("execute_callable", "partial", "poke_callable", "python_callable"))
CALLED_LATER_PREFIXES = ("on_", "pre_execute", "post_execute", "sla_miss", "user_defined_")
CREATES = frozenset(("__init__", "__init_subclass__", "__new__", "__post_init__", "__set_name__"))


def may_differ(sources: Iterable[str]) -> bool:
    """True if the import of these sources together may have another result each time. Follows calls by the names of
    functions and methods; functions of tasks do not run at import."""
    check = Check()
    trees = [ast.parse(source) for source in sources]
    for tree in trees:
        check.collect(tree)
    for tree in trees:
        check.visit_all(tree.body)
    while check.called and not check.found:
        for node in check.functions.pop(check.called.pop(), ()):
            check.visit_all(node.body)
    return check.found


class Check(ast.NodeVisitor):
    def __init__(self):
        # Functions by name, and the names of those that are called at import.
        self.functions, self.called = {}, set()
        # Names of the modules in MODULES, and of what was imported from them.
        self.from_modules = set()
        self.found = False

    def collect(self, tree):
        for node in ast.walk(tree):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and not any(map(makes_task, node.decorator_list)):
                self.functions.setdefault(node.name, []).append(node)
            elif isinstance(node, ast.ClassDef):
                creates = [item for item in node.body if getattr(item, "name", None) in CREATES]
                self.functions.setdefault(node.name, []).extend(creates)
            elif isinstance(node, ast.Import):
                self.from_modules.update(alias.asname or alias.name for alias in node.names if alias.name in MODULES)
            elif isinstance(node, ast.ImportFrom) and node.module in MODULES:
                self.from_modules.update(alias.asname or alias.name for alias in node.names)

    def visit_all(self, nodes):
        for node in nodes:
            self.visit(node)

    def visit_FunctionDef(self, node):  # noqa: N802
        # Its body runs when it is called.
        self.visit_all([*node.decorator_list, *node.args.defaults, *filter(None, node.args.kw_defaults)])

    visit_AsyncFunctionDef = visit_FunctionDef  # noqa: N815

    def visit_keyword(self, node):
        if not is_called_later(node.arg):
            self.visit(node.value)

    def visit_Dict(self, node):  # noqa: N802
        # Such as `default_args`.
        for key, value in zip(node.keys, node.values, strict=True):
            if key is not None:
                self.visit(key)
            if not is_called_later(getattr(key, "value", None)):
                self.visit(value)

    def visit_Name(self, node):  # noqa: N802
        # A function that is passed on may be called.
        self.use(node.id)
        self.found |= node.id in self.from_modules

    def visit_Attribute(self, node):  # noqa: N802
        self.use(node.attr)
        self.visit(node.value)

    def use(self, name):
        self.found |= name in NAMES
        if name in self.functions:
            self.called.add(name)


def is_called_later(argument):
    return isinstance(argument, str) and (argument in CALLED_LATER or argument.startswith(CALLED_LATER_PREFIXES))


def makes_task(decorator):
    """True for `@task`, `@task.sensor(…)` and the like."""
    while isinstance(decorator, (ast.Call, ast.Attribute)):
        decorator = decorator.func if isinstance(decorator, ast.Call) else decorator.value
    return isinstance(decorator, ast.Name) and decorator.id == "task"
