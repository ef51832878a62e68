"""The exact value of a piece of arithmetic, for those who check calculations rather than answers."""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache

from rewards.exact import Budget, rational
from rewards.limits import LimitError, ParseError, Undefined
from rewards.parser import parse


@lru_cache(maxsize=1 << 14)
def exact_value(expression: str) -> Fraction | None:
    """The rational value of `expression` (plain or LaTeX), None where it has none, is too large or cannot be read."""
    try:
        return rational(parse(expression), {}, Budget())
    except (LimitError, ParseError, Undefined):
        return None
