"""Reads what a Python file needs from its syntax tree, without running it."""

from __future__ import annotations

import ast
import re

from leoflow.airflow_2 import arguments, context
from leoflow.common.hints import airflow_2, image_paths

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

# Decorators and operators whose functions run with packages of their own.
OTHER_PYTHON = ("virtualenv", "external_python", "docker", "kubernetes")
OTHER_PYTHON_OPERATORS = ("VirtualenvOperator", "ExternalPythonOperator")
TEMPLATE_VARIABLE = re.compile(r"\bvar\.(?:value|json)\.(?!get\b)(\w+)")
TEMPLATE = re.compile(r"\{[{%](.*?)[}%]\}", re.DOTALL)
PULL = "xcom_pull without task_ids reads only the task's own XComs in Airflow 3; name the tasks"
# Names of the context in functions, for its keys.
CONTEXTS = ("context", "ctx", "kwargs", "kw")
PULL_WITHOUT_TASK = re.compile(r"\bxcom_pull\((?!\s*['\"\[])(?![^)]*task_ids)")
REMOVED_METHOD = re.compile(rf"\bdag\.({'|'.join(airflow_2.METHODS)})\b")
REMOVED_KEY = re.compile(rf"(?<![\w.'\"])({'|'.join(airflow_2.CONTEXT)})\b")


class SourceFile(ast.NodeVisitor):
    """The facts of one file. Each has the line where it stands first."""

    def __init__(self, tree: ast.Module, package: str):
        """`package` is the dotted name of the file's folder, for relative imports."""
        self.package = package
        # For each import: the module, the imported names (empty for `import x`), the line, and whether the file copes
        # without it.
        self.imports: list[tuple[str, tuple[str, ...], int, bool]] = []
        self.image_paths: dict[str, int] = {}
        # Arguments and context keys that Airflow 3 lacks, as sentences; those that `airflow_2` translates are apart.
        self.removed: dict[str, int] = {}
        self.translated: dict[str, int] = {}
        # Variables, connections and environment variables that are read without a default value.
        self.variables: dict[str, int] = {}
        self.connections: dict[str, int] = {}
        self.environment: dict[str, int] = {}
        self._is_optional = False
        self._own_packages = set(functions_with_own_packages(tree))
        self.visit(tree)

    def visit_Import(self, node):
        for alias in node.names:
            self.imports.append((alias.name, (), node.lineno, self._is_optional))

    def visit_ImportFrom(self, node):
        module = node.module or ""
        if node.level:
            parents = self.package.split(".")[: len(self.package.split(".")) - node.level + 1]
            module = ".".join(filter(None, (*parents, module)))
        self.imports.append((module, tuple(alias.name for alias in node.names), node.lineno, self._is_optional))

    def visit_Try(self, node):
        caught = {getattr(name, "id", getattr(name, "attr", "")) for handler in node.handlers
                  for name in (getattr(handler.type, "elts", None) or [handler.type])}
        outer, self._is_optional = self._is_optional, self._is_optional or bool(
            caught & {"", "ImportError", "ModuleNotFoundError", "Exception", "BaseException", "NoneType"} or None in caught)
        for child in node.body:
            self.visit(child)
        for handler in node.handlers:
            self.visit(handler)
        self._is_optional = outer
        for child in (*node.orelse, *node.finalbody):
            self.visit(child)

    def visit_If(self, node):
        test = getattr(node.test, "id", getattr(node.test, "attr", ""))
        for child in node.orelse if test == "TYPE_CHECKING" else (node.test, *node.body, *node.orelse):
            self.visit(child)

    def visit_FunctionDef(self, node):
        for argument in (*node.args.args, *node.args.kwonlyargs):
            self._note_key(argument.arg, argument)
        if node.name not in self._own_packages and not any(map(is_other_python, node.decorator_list)):
            self.generic_visit(node)

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_Call(self, node):
        name = called_name(node)
        last = getattr(node.func, "attr", name)
        first = text_of(node.args[0]) if node.args else None
        has_default = len(node.args) > 1 or any(keyword.arg in ("default", "default_var") for keyword in node.keywords)
        is_default_args = last == "dict" and any(keyword.arg in ("owner", "start_date", "retries") for keyword in node.keywords)
        if last in ("DAG", "dag", "task", "partial") or last.endswith(("Operator", "Sensor")) or is_default_args:
            for keyword in node.keywords:
                self._note_removed("argument", keyword.arg, airflow_2.ARGUMENTS, arguments.TRANSLATED, keyword.value)
                self._note_rule(keyword.arg, keyword.value)
        if last == "xcom_pull" and not node.args and not any(keyword.arg in ("task_ids", None) for keyword in node.keywords):
            self._note(self.removed, PULL, node)
        if first and name.endswith("Variable.get") and not has_default:
            self._note(self.variables, first, node)
        elif first and last in ("get_connection", "get_connection_from_secrets"):
            self._note(self.connections, first, node)
        for keyword in node.keywords:
            if keyword.arg and keyword.arg.endswith("conn_id") and text_of(keyword.value):
                self._note(self.connections, text_of(keyword.value), node)
        self.generic_visit(node)

    def visit_Dict(self, node):
        for key, value in zip(node.keys, node.values, strict=True):
            self._note_rule(key is not None and text_of(key), value)
        self.generic_visit(node)

    def visit_Attribute(self, node):
        self._note_removed("method", node.attr, airflow_2.METHODS, (), node)
        if node.attr == "execution_date":
            self._note_key(node.attr, node)
        self.generic_visit(node)

    def visit_Subscript(self, node):
        if dotted(node.value) in ("os.environ", "environ") and isinstance(node.ctx, ast.Load) and text_of(node.slice):
            self._note(self.environment, text_of(node.slice), node)
        elif dotted(node.value) in CONTEXTS:
            self._note_key(text_of(node.slice), node)
        self.generic_visit(node)

    def visit_Constant(self, node):
        text = node.value
        if not isinstance(text, str) or len(text) > 1_000_000:
            return
        if image_paths.folders_in(text):
            self._note(self.image_paths, text, node)
        for template in TEMPLATE.findall(text):
            for key in TEMPLATE_VARIABLE.findall(template):
                self._note(self.variables, key, node)
            if PULL_WITHOUT_TASK.search(template):
                self._note(self.removed, PULL, node)
            for name in REMOVED_METHOD.findall(template):
                self._note_removed("method", name, airflow_2.METHODS, (), node)
            for key in REMOVED_KEY.findall(template):
                self._note_key(key, node)

    def visit_Expr(self, node):
        # A docstring's examples are no code.
        if not isinstance(node.value, ast.Constant):
            self.generic_visit(node)

    def _note_key(self, key, node):
        self._note_removed("context key", key, airflow_2.CONTEXT, context.KEYS, node)

    def _note_rule(self, name, value):
        if name == "trigger_rule" and text_of(value) in arguments.TRIGGER_RULES:
            rule = text_of(value)
            self._note(self.translated, f"Airflow 3 has no trigger rule `{rule}`; use `{arguments.TRIGGER_RULES[rule]}`", value)

    def _note_removed(self, kind, name, table, translated, node):
        if name in table:
            self._note(self.translated if name in translated else self.removed, airflow_2.sentences(kind, [name], table), node)

    @staticmethod
    def _note(facts, fact, node):
        facts.setdefault(fact, node.lineno)


def functions_with_own_packages(tree: ast.AST) -> Iterator[str]:
    """Yields the names of the functions that operators call in another Python."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and called_name(node).endswith(OTHER_PYTHON_OPERATORS):
            yield from (keyword.value.id for keyword in node.keywords
                        if keyword.arg == "python_callable" and isinstance(keyword.value, ast.Name))


def is_other_python(decorator: ast.expr) -> bool:
    name = called_name(decorator) if isinstance(decorator, ast.Call) else dotted(decorator)
    return name.startswith("task.") and name.partition(".")[2].removeprefix("branch_") in OTHER_PYTHON


def called_name(call: ast.Call) -> str:
    return dotted(call.func)


def dotted(node: ast.expr) -> str:
    """Returns `a.b.c` for such an expression; an empty text for any other one."""
    if isinstance(node, ast.Attribute):
        base = dotted(node.value)
        return f"{base}.{node.attr}" if base else ""
    return node.id if isinstance(node, ast.Name) else ""


def text_of(node: ast.expr) -> str | None:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None
