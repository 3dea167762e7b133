"""The filter language of `--where`: conditions on a gallery's columns, read and interpreted, never executed.

    density == 'D' and view in ('MLO', 'CC') and not (age < 50)
    margin is None or implant

Comparisons `== != < <= > >=` between a column and a value, `in` and `not in` a list of values, `is None` and
`is not None`, a column of truth values by its name alone, `and`, `or`, `not` and parentheses. What is unknown
stays unknown (Kleene's three-valued logic, as in SQL): a comparison with a missing value is neither true nor
false, and only rows for which the whole filter is true pass.
"""

import ast
import warnings
from dataclasses import dataclass

from index import QueryError
from index.conditions import Bare, Comparison, Joined, Literal, Mask, Membership, Missing, Node, Not, Table
from index.table import RecordTable

LONGEST_FILTER = 2000
"""Characters that a filter may have."""

DEEPEST_FILTER = 40
"""How deep its parentheses, `and`, `or` and `not` may be nested."""

_COMPARISONS: dict[type[ast.cmpop], str] = {
    ast.Eq: "==", ast.NotEq: "!=", ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=",
}  # fmt: skip
_MIRRORED = {"==": "==", "!=": "!=", "<": ">", "<=": ">=", ">": "<", ">=": "<="}


@dataclass(frozen=True)
class Filter:
    """A filter that has been read.

    Attributes:
        text: As it was written.
        node: What it means.
    """

    text: str
    node: Node

    def mask(self, records: RecordTable) -> Mask:
        """Return which rows pass: those for which the filter is true, not those for which it is unknown.

        Args:
            records: (n rows).

        Returns:
            bool (n,).

        Raises:
            QueryError: It names a column that is not there, or compares a text with a number.

        >>> import pandas as pd
        >>> records = RecordTable.of_frame(pd.DataFrame({"density": ["D", None, "A"]}))
        >>> parse_filter("not density == 'D'").mask(records).tolist()
        [False, False, True]
        """
        return self.node.truth(Table(records, self.text)).true


def parse_filter(text: str) -> Filter:
    """Read a filter.

    Args:
        text: See the head of this module.

    Raises:
        QueryError: It is not written in the filter language.
    """
    return Filter(text, _Reader(text).read())


class _Reader:
    """From Python's syntax tree, of which the filter language is a small part, to nodes."""

    def __init__(self, text: str) -> None:
        self._text = text

    def read(self) -> Node:
        if not self._text.strip():
            raise self._error("is empty", "leave it out, or write a condition such as `density == 'D'`")
        if len(self._text) > LONGEST_FILTER:
            raise self._error(f"has {len(self._text)} characters", f"the limit is {LONGEST_FILTER}")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Python's remarks on a text that never runs
                tree = ast.parse(self._text.strip(), mode="eval")
        except SyntaxError as error:
            place = f" at character {error.offset}" if error.offset else ""
            raise self._error(
                f"can't be read{place} ({error.msg})", "an example is `density == 'D' and view == 'MLO'`"
            ) from error
        except (ValueError, MemoryError, RecursionError) as error:
            raise self._error("can't be read", f"simplify it ({error})" if str(error) else "simplify it") from error
        return self._node(tree.body, 0)

    def _error(self, cause: str, remedy: str = "") -> QueryError:
        shown = self._text if len(self._text) <= 200 else self._text[:200] + "…"
        return QueryError(f"filter {shown!r}", cause, remedy)

    def _foreign(self, node: ast.AST) -> QueryError:
        try:
            source = ast.unparse(node)[:80]
        except (RecursionError, ValueError):
            source = type(node).__name__
        return self._error(
            f"`{source}` is not part of the filter language",
            "it has columns, values, == != < <= > >=, in, not in, is None, and, or, not and parentheses",
        )

    def _node(self, node: ast.expr, depth: int) -> Node:
        if depth > DEEPEST_FILTER:
            raise self._error(f"is nested deeper than {DEEPEST_FILTER}", "simplify it")
        if isinstance(node, ast.BoolOp):
            parts = (self._node(part, depth + 1) for part in node.values)
            return Joined(isinstance(node.op, ast.And), tuple(parts))
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            return Not(self._node(node.operand, depth + 1))
        if isinstance(node, ast.Name):
            return Bare(node.id)
        if isinstance(node, ast.Compare):
            return self._compare(node)
        raise self._foreign(node)

    def _compare(self, node: ast.Compare) -> Node:
        if len(node.ops) != 1:
            raise self._error(f"`{ast.unparse(node)}` compares more than two things", "join two comparisons by `and`")
        left, operator, right = node.left, node.ops[0], node.comparators[0]
        if isinstance(operator, ast.In | ast.NotIn):
            member = Membership(self._name(left), self._list(right))
            return member if isinstance(operator, ast.In) else Not(member)
        if isinstance(operator, ast.Is | ast.IsNot):
            if not (isinstance(right, ast.Constant) and right.value is None):
                raise self._error(f"`{ast.unparse(node)}`: `is` goes with None only", "write == or !=")
            missing = Missing(self._name(left))
            return missing if isinstance(operator, ast.Is) else Not(missing)
        symbol = _COMPARISONS[type(operator)]
        if isinstance(right, ast.Name) and not isinstance(left, ast.Name):
            return Comparison(right.id, _MIRRORED[symbol], self._literal(left))
        return Comparison(self._name(left), symbol, self._literal(right))

    def _name(self, node: ast.expr) -> str:
        if isinstance(node, ast.Name):
            return node.id
        if isinstance(node, ast.Constant):
            raise self._error(f"{node.value!r} stands where a column is wanted", "write a column's name without quotes")
        raise self._foreign(node)

    def _list(self, node: ast.expr) -> tuple[Literal, ...]:
        if isinstance(node, ast.Tuple | ast.List | ast.Set):
            if not node.elts:
                raise self._error("has an empty list", "name the values, as in `view in ('MLO', 'CC')`")
            return tuple(self._literal(element) for element in node.elts)
        if isinstance(node, ast.Constant | ast.Name):
            raise self._error("`in` needs a list of values", "write it as in `view in ('MLO', 'CC')`; one value by ==")
        raise self._foreign(node)

    def _literal(self, node: ast.expr) -> Literal:
        sign = 1
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
            sign = -1 if isinstance(node.op, ast.USub) else 1
            node = node.operand
            if not (isinstance(node, ast.Constant) and type(node.value) in (int, float)):
                raise self._foreign(node)
        if isinstance(node, ast.Name):
            raise self._error(f"{node.id} stands where a value is wanted", f"put a text in quotes: '{node.id}'")
        if not isinstance(node, ast.Constant):
            raise self._foreign(node)
        value = node.value
        if value is None:
            raise self._error("nothing equals None", "write `is None` or `is not None`")
        if isinstance(value, bool | str):
            return value
        if isinstance(value, int | float):
            if not abs(value) < 2**63:
                raise self._error("holds a number that is too large", "numbers go up to 9e18")
            return sign * value
        raise self._foreign(node)
