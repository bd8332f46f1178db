"""Mutants: a module with one small fault, as a careless change would make it.

One node of the syntax tree is changed: a comparison, an operator, a condition, a constant, a returned value, or a
statement taken out. Texts of raised errors, docstrings, annotations and decorators stay as they are.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass

COMPARISONS: dict[type[ast.cmpop], list[type[ast.cmpop]]] = {
    ast.Lt: [ast.LtE, ast.GtE],
    ast.LtE: [ast.Lt, ast.Gt],
    ast.Gt: [ast.GtE, ast.LtE],
    ast.GtE: [ast.Gt, ast.Lt],
    ast.Eq: [ast.NotEq],
    ast.NotEq: [ast.Eq],
    ast.Is: [ast.IsNot],
    ast.IsNot: [ast.Is],
    ast.In: [ast.NotIn],
    ast.NotIn: [ast.In],
}
OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Add,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.Pow: ast.Mult,
    ast.BitOr: ast.BitAnd,
    ast.BitAnd: ast.BitOr,
}


@dataclass(frozen=True)
class Mutant:
    """A module with one fault."""

    line: int
    change: str  # the node before and after
    source: str


def changes(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes that may stand in the place of `node`, each a fault."""
    match node:
        case ast.Compare(ops=[operator]):
            for other in COMPARISONS[type(operator)]:
                yield ast.Compare(node.left, [other()], node.comparators)
        case ast.Compare(ops=operators):  # a chain: the first and the last
            for place in (0, len(operators) - 1):
                for other in COMPARISONS[type(operators[place])]:
                    ops = [*operators[:place], other(), *operators[place + 1 :]]
                    yield ast.Compare(node.left, ops, node.comparators)
        case ast.BoolOp():
            yield ast.BoolOp(ast.And() if isinstance(node.op, ast.Or) else ast.Or(), node.values)
            for place in range(len(node.values)):  # one condition forgotten
                yield ast.BoolOp(node.op, node.values[:place] + node.values[place + 1 :])
        case ast.UnaryOp(op=ast.Not() | ast.USub()):
            yield node.operand
        case ast.BinOp() if type(node.op) in OPERATORS:
            yield ast.BinOp(node.left, OPERATORS[type(node.op)](), node.right)
        case ast.IfExp():
            yield ast.IfExp(node.test, node.orelse, node.body)
        case ast.If() | ast.While() if isinstance(node.test, ast.Name | ast.Attribute | ast.Call | ast.NamedExpr):
            yield type(node)(ast.UnaryOp(ast.Not(), node.test), node.body, node.orelse)
        case ast.Constant(value=bool()):
            yield ast.Constant(not node.value)
        case ast.Constant(value=int() | float() as number):
            yield ast.Constant(number + 1)
        case ast.Constant(value=str() | bytes()) if node.value:
            yield ast.Constant(type(node.value)())
        case ast.Return(value=value) if value is not None and not (isinstance(value, ast.Constant) and not value.value):
            yield ast.Return(ast.Constant(None))
        case ast.Assign(targets=[ast.Name() | ast.Attribute()]) if ast.unparse(node.value) != "None":
            yield ast.Assign(node.targets, ast.Constant(None), lineno=0)
        case ast.Continue():
            yield ast.Break()
        case ast.Break():
            yield ast.Continue()
        case ast.Expr(value=ast.Call()) | ast.AugAssign() | ast.Raise() | ast.Assign():
            yield ast.Pass()


def untouched(parent: ast.AST, field: str, node: ast.AST) -> bool:
    """Whether what lies below `node` is no behaviour: docstrings, annotations, types, texts of errors."""
    if field in ("annotation", "returns", "decorator_list", "bases", "type") or isinstance(parent, ast.Raise):
        return True
    match node:
        case ast.Expr(value=ast.Constant()) | ast.If(test=ast.Name(id="TYPE_CHECKING")):
            return True
        case ast.Subscript(value=ast.Name(id="Literal" | "Annotated")):
            return True
        case ast.Assign(value=ast.Subscript() | ast.BinOp(op=ast.BitOr())):  # a type by another name
            return isinstance(parent, ast.Module)
        case ast.Assign(value=ast.Call(func=ast.Name(id="TypeVar"))):
            return True
    return False


def mutants(source: str) -> list[Mutant]:
    """Every mutant of a module, in the order of its lines."""
    tree = ast.parse(source)
    found: list[Mutant] = []

    def visit(parent: ast.AST, line: int) -> None:
        for field, value in ast.iter_fields(parent):
            for place, node in enumerate(value if isinstance(value, list) else [value]):
                if not isinstance(node, ast.AST) or untouched(parent, field, node):
                    continue
                at = getattr(node, "lineno", line)
                for fault in changes(node):
                    put = [*value[:place], fault, *value[place + 1 :]] if isinstance(value, list) else fault
                    setattr(parent, field, put)
                    before, after = (ast.unparse(one).split("\n")[0] for one in (node, fault))
                    found.append(Mutant(at, f"{before}  ->  {after}", ast.unparse(ast.fix_missing_locations(tree))))
                    setattr(parent, field, value)
                visit(node, at)

    visit(tree, 1)
    return sorted(found, key=lambda mutant: mutant.line)
