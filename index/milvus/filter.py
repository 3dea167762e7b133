"""The filter language of `--where` in Milvus's own, so that a filter acts within its search.

Milvus treats what is missing in its own ways, which differ between releases and kinds of field. So none of it is
relied on: a filter is rewritten until `not` stands nowhere but in `not exists`, and each condition that a missing
value could meet by accident asks first whether the value exists. What is true there is then what is true here
(Kleene's logic, see `index.filters`), and what is unknown passes nowhere.
"""

from collections.abc import Mapping
from typing import assert_never

from index.conditions import Bare, Comparison, Joined, Literal, Membership, Missing, Node, Not
from index.filters import Filter
from index.milvus.address import quote
from index.milvus.rows import StoredColumn, sample_table

Condition = str | bool
"""An expression in Milvus's language, or what holds for every row."""

_OPPOSITE = {"==": "!=", "!=": "==", "<": ">=", "<=": ">", ">": "<=", ">=": "<"}


def translate(condition: Filter, columns: Mapping[str, StoredColumn]) -> Condition:
    """Return a filter as Milvus reads it: the expression is true for exactly the rows that pass.

    Args:
        condition: The filter.
        columns: The gallery's columns by name.

    Raises:
        QueryError: It names a column that is not there, or compares a text with a number; as for a folder.
    """
    condition.mask(sample_table(columns.values()))
    return _translate(condition.node, columns, wanted=True)


def every(*conditions: Condition) -> Condition:
    """Return the condition that holds where all of some hold."""
    if False in conditions:
        return False
    parts = list(dict.fromkeys(part for part in conditions if part is not True))
    return f"({' and '.join(map(str, parts))})" if len(parts) > 1 else parts[0] if parts else True


def some(*conditions: Condition) -> Condition:
    """Return the condition that holds where any of some holds."""
    if True in conditions:
        return True
    parts = list(dict.fromkeys(part for part in conditions if part is not False))
    return f"({' or '.join(map(str, parts))})" if len(parts) > 1 else parts[0] if parts else False


def dynamic(column: StoredColumn) -> str:
    """Return how an expression names the cells of a column."""
    return f"$meta[{quote(column.key)}]"


def _translate(node: Node, columns: Mapping[str, StoredColumn], *, wanted: bool) -> Condition:
    """Return the rows for which a node is known to be true, or, where that is not wanted, known to be false."""
    match node:
        case Not(part):
            return _translate(part, columns, wanted=not wanted)
        case Joined(together, parts):
            join = every if together == wanted else some
            return join(*(_translate(part, columns, wanted=wanted) for part in parts))
        case Missing(name):
            if not columns[name].known:
                return wanted
            exists = f"exists {dynamic(columns[name])}"
            return f"(not {exists})" if wanted else exists
        case Bare(name):
            return _compare(columns[name], "==" if wanted else "!=", True)
        case Comparison(name, operator, value):
            return _compare(columns[name], operator if wanted else _OPPOSITE[operator], value)
        case Membership(name, values):
            if wanted:
                return some(*(_compare(columns[name], "==", value) for value in values))
            return every(*(_compare(columns[name], "!=", value) for value in values))
        case _:
            assert_never(node)


def _compare(column: StoredColumn, operator: str, value: Literal) -> Condition:
    if not column.known:
        return False
    cell = dynamic(column)
    if isinstance(value, bool):
        return f"{cell} == {literal(column, value == (operator == '=='))}"
    compared = f"{cell} {operator} {literal(column, value)}"
    return every(f"exists {cell}", compared) if operator == "!=" else compared


def literal(column: StoredColumn, value: Literal) -> str:
    """Return a value as Milvus reads it, as the column holds it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return quote(value)
    return repr(float(value) if column.kind == "number" else value)
