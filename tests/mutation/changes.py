"""The one-place changes of a module: each is the module's text with one expression or statement replaced.

Annotations, docstrings, texts, assertions, log calls, decorators, imports and ``__slots__`` are left alone.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import Final, NamedTuple

__all__ = ["Change", "changes"]

_COMPARISONS: Final[dict[type[ast.cmpop], type[ast.cmpop]]] = {
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
_OPERATORS: Final[dict[type[ast.operator], type[ast.operator]]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}
_NO_VALUE: Final = ("None", "True", "False")


class Change(NamedTuple):
    """One change of a module."""

    line: int
    function: str
    """The qualified name of the function, or ``"<module>"``."""
    old: str
    new: str
    text: str
    """The whole module with the change."""


def changes(source: str) -> list[Change]:
    """Return every change of a module's source, in the order of its lines.

    >>> [(change.function, change.old, change.new) for change in changes("def f(x):\\n    return x > 0")]
    [('f', 'return x > 0', 'return None'), ('f', 'x > 0', 'x >= 0'), ('f', '0', '1')]
    """
    lines = source.splitlines(keepends=True)
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line.encode()))
    encoded = source.encode()
    found = []
    for node, function, new in _walk(ast.parse(source), []):
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        start, end = starts[node.lineno - 1] + node.col_offset, starts[node.end_lineno - 1] + node.end_col_offset
        shown = new if isinstance(node, ast.stmt) or new in _NO_VALUE else f"({new})"
        text = (encoded[:start] + shown.encode() + encoded[end:]).decode()
        found.append(Change(node.lineno, function, ast.unparse(node), new, text))
    return sorted(found, key=lambda change: change.line)


def _walk(node: ast.AST, names: list[str]) -> Iterator[tuple[ast.expr | ast.stmt, str, str]]:
    """Yield node, function and replacement of each change in ``node``."""
    if _is_left_alone(node):
        return
    function = ".".join(names) or "<module>"
    if isinstance(node, ast.expr):
        for new in _instead_of_expression(node):
            yield node, function, ast.unparse(new)
    elif isinstance(node, ast.stmt):
        for text in _instead_of_statement(node):
            yield node, function, text
    for test in _tests(node):
        for value in ("True", "False"):
            if not isinstance(test, ast.Constant):
                yield test, function, value
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        names = [*names, node.name]
    for child in _children(node):
        yield from _walk(child, names)


def _children(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the parts of a node, except those that are left alone in any case."""
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
        yield from (default for default in (*node.args.defaults, *node.args.kw_defaults) if default is not None)
        yield from node.body
    elif isinstance(node, ast.ClassDef):
        yield from node.body
    elif isinstance(node, ast.AnnAssign):
        if node.value is not None:
            yield node.value
    elif isinstance(node, ast.Raise):
        return  # the error's text and arguments
    elif isinstance(node, ast.match_case):  # a pattern is no expression
        if node.guard is not None:
            yield node.guard
        yield from node.body
    else:
        yield from ast.iter_child_nodes(node)


def _is_left_alone(node: ast.AST) -> bool:
    if isinstance(node, (ast.JoinedStr, ast.Assert, ast.Import, ast.ImportFrom)):
        return True
    if isinstance(node, ast.Assign):
        return any(isinstance(target, ast.Name) and target.id.startswith("__") for target in node.targets)
    if isinstance(node, ast.If):
        return isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Constant) or "get_logger" in ast.unparse(node.value)
    return False


def _tests(node: ast.AST) -> list[ast.expr]:
    """The conditions of a node."""
    if isinstance(node, (ast.If, ast.IfExp)):
        return [node.test]
    if isinstance(node, ast.comprehension):
        return node.ifs
    if isinstance(node, ast.match_case) and node.guard is not None:
        return [node.guard]
    return []


def _instead_of_expression(node: ast.expr) -> Iterator[ast.expr]:
    match node:
        case ast.Compare(left=left, ops=[operator], comparators=comparators):
            yield ast.Compare(left, [_COMPARISONS[type(operator)]()], comparators)
        case ast.BoolOp(op=op, values=values):
            yield ast.BoolOp(ast.Or() if isinstance(op, ast.And) else ast.And(), values)
            for left_out in values:
                rest = [value for value in values if value is not left_out]
                yield ast.BoolOp(op, rest) if len(rest) > 1 else rest[0]
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            yield operand
        case ast.BinOp(left=left, op=operator, right=right) if type(operator) in _OPERATORS:
            yield ast.BinOp(left, _OPERATORS[type(operator)](), right)
        case ast.Constant(value=bool() as value):
            yield ast.Constant(not value)
        case ast.Constant(value=int() | float() as value):
            yield ast.Constant(value + 1)


def _instead_of_statement(node: ast.stmt) -> Iterator[str]:
    match node:
        case ast.Return(value=None) | ast.Raise() | ast.Continue() | ast.Break() | ast.Delete():
            yield "pass"
        case ast.Return(value=value) if not (isinstance(value, ast.Constant) and value.value is None):
            yield "return None"
        case ast.Expr():
            yield "pass"
        case ast.AugAssign(target=target, op=operator, value=value):
            yield "pass"
            if type(operator) in _OPERATORS:
                yield ast.unparse(ast.AugAssign(target, _OPERATORS[type(operator)](), value))
        case ast.Assign(targets=[ast.Attribute() | ast.Subscript()]):
            yield "pass"
