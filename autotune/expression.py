"""Constraint expressions over flags, such as `chunked_prefill_size % 64 == 0`, parsed and never eval'ed.

In: text in Python's expression syntax (flag names with underscores). Out: an `Expression` that says whether
a candidate satisfies it. Pure. A flag that a candidate leaves to the engine makes its comparison unknown,
and what is unknown does not reject.
"""

import ast
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

_BINARY: Mapping[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
_COMPARE: Mapping[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.In: lambda item, group: item in group,
    ast.NotIn: lambda item, group: item not in group,
}
_UNARY: Mapping[type[ast.unaryop], Callable[[Any], Any]] = {
    ast.Not: operator.not_,
    ast.USub: operator.neg,
}
_ALLOWED = (
    ast.Expression,
    ast.BoolOp,
    ast.And,
    ast.Or,
    ast.BinOp,
    ast.UnaryOp,
    ast.Compare,
    ast.Name,
    ast.Load,
    ast.Constant,
    ast.Tuple,
    ast.List,
    *_BINARY,
    *_COMPARE,
    *_UNARY,
)


class _UnknownError(Exception):
    """A flag without a value took part."""


@dataclass(frozen=True)
class Expression:
    """A parsed expression; `names` are the flags it speaks of, spelled with dashes."""

    text: str
    tree: ast.Expression
    names: frozenset[str]

    def holds(self, flags: Mapping[str, object]) -> bool:
        """Return False only if the flags given contradict the expression.

        Raises:
            ValueError: the values do not fit the operators (a word compared with a number, division by zero).
        """
        try:
            return bool(_evaluate(self.tree.body, flags))
        except _UnknownError:
            return True
        except (TypeError, ZeroDivisionError) as error:
            raise ValueError(f"{self.text!r} cannot be evaluated: {error}") from error


def parse_expression(text: str) -> Expression:
    """Return the parsed expression.

    Raises:
        ValueError: not an expression, or it uses more than names, numbers, words, arithmetic, comparisons,
            `in`, `and`, `or` and `not`.
    """
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except SyntaxError as error:
        example = "write it like 'chunked_prefill_size <= 8192'"
        raise ValueError(f"{text!r} is not an expression ({error.msg}); {example}") from None
    for node in ast.walk(tree):
        if not isinstance(node, _ALLOWED):
            raise ValueError(f"{text!r} uses {type(node).__name__}, which is not allowed here")  # noqa: TRY004 - bad text, not a bad type
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    return Expression(text, tree, frozenset(name.replace("_", "-") for name in names))


def _evaluate(node: ast.expr, flags: Mapping[str, object]) -> Any:
    match node:
        case ast.Constant(value=value):
            return value
        case ast.Name(id=name):
            return _value_of(name.replace("_", "-"), flags)
        case ast.Tuple(elts=items) | ast.List(elts=items):
            return tuple(_evaluate(item, flags) for item in items)
        case ast.UnaryOp(op=sign, operand=operand):
            return _UNARY[type(sign)](_evaluate(operand, flags))
        case ast.BinOp(left=left, op=sign, right=right):
            return _BINARY[type(sign)](_evaluate(left, flags), _evaluate(right, flags))
        case ast.BoolOp(op=sign, values=parts):
            return _combine(isinstance(sign, ast.And), parts, flags)
        case ast.Compare(left=left, ops=signs, comparators=rights):
            return _compare(left, signs, rights, flags)
        case _:
            raise AssertionError(node)


def _value_of(name: str, flags: Mapping[str, object]) -> object:
    value = flags.get(name)
    if value is None:
        raise _UnknownError
    return value


def _combine(is_and: bool, parts: list[ast.expr], flags: Mapping[str, object]) -> bool:  # noqa: FBT001
    """Evaluate `and`/`or` in three-valued logic: a decided part decides, whatever is unknown beside it."""
    unknown = False
    for part in parts:
        try:
            value = bool(_evaluate(part, flags))
        except _UnknownError:
            unknown = True
            continue
        if value is not is_and:
            return value
    if unknown:
        raise _UnknownError
    return is_and


def _compare(
    left: ast.expr, signs: list[ast.cmpop], rights: list[ast.expr], flags: Mapping[str, object]
) -> bool:
    value = _evaluate(left, flags)
    for sign, right in zip(signs, rights, strict=True):
        other = _evaluate(right, flags)
        if not _COMPARE[type(sign)](value, other):
            return False
        value = other
    return True
