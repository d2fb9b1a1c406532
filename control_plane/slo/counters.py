"""Counter queries: a counter selector, or a sum of them, as PromQL text."""

from __future__ import annotations

import promql_parser as promql

from control_plane.slo.events import Selector

_OPERATORS = (
    (promql.MatchOp.Equal, "="),
    (promql.MatchOp.NotEqual, "!="),
    (promql.MatchOp.Re, "=~"),
    (promql.MatchOp.NotRe, "!~"),
)
_WAY_OUT = 'write a counter selector such as requests_total{code=~"5.."}, or sums of them joined with +'


def counters_of(query: str) -> tuple[Selector, ...]:
    """The counters whose increments the query adds. Raises ValueError with the way out for any other query.

    Rates, ranges and ratios are refused: events are read raw and added here, because `increase()` rounds to fractions,
    drops the first sample of a new series and is empty when its range equals the scrape interval.
    """
    try:
        expression = promql.parse(query)
    except ValueError as error:
        raise ValueError(f"{query!r} is not PromQL ({error}): {_WAY_OUT}") from error
    return tuple(_summands(expression, query))


def _summands(expression: promql.Expr, query: str) -> list[Selector]:
    match expression:
        case promql.VectorSelector():
            return [_selector(expression, query)]
        case promql.ParenExpr():
            return _summands(expression.expr, query)
        case promql.AggregateExpr() if str(expression.op) == "sum" and expression.modifier is None:
            return _summands(expression.expr, query)
        case promql.BinaryExpr() if str(expression.op) == "+" and expression.modifier is None:
            return _summands(expression.lhs, query) + _summands(expression.rhs, query)
    raise ValueError(f"{query!r} is more than counters and their sum: {_WAY_OUT}")


def _selector(vector: promql.VectorSelector, query: str) -> Selector:
    if vector.offset is not None or vector.at is not None:
        raise ValueError(f"{query!r} shifts time: take `offset` and `@` away, Backstay chooses the times")
    if vector.matchers.or_matchers:
        raise ValueError(f"{query!r} joins matchers with `or`: write two selectors joined with +")
    name = vector.name
    matchers: list[tuple[str, str, str]] = []
    for matcher in vector.matchers.matchers:
        operator = next(sign for op, sign in _OPERATORS if op == matcher.op)
        if matcher.name == "__name__" and operator == "=":
            name = matcher.value
        elif matcher.name == "__name__":
            raise ValueError(f"{query!r} matches metric names by pattern: name each metric")
        else:
            matchers.append((matcher.name, operator, matcher.value))
    if not name:
        raise ValueError(f"{query!r} names no metric: put the metric's name before the braces")
    return Selector(name, tuple(sorted(matchers)))
