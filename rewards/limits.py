"""Bounds that hold before any arithmetic is done, and the exceptions that report them.

Every bound is checked on the text or the tree, never by waiting: a prediction cannot make the caller's
process slow, large or stuck. Sizes are generous for answers people write; the longest answer among
12,500 MATH problems has 159 characters.
"""

from __future__ import annotations

TEXT_TAIL = 100_000
"""Characters of a prediction that are searched for an answer, counted from its end."""
ANSWER_CHARS = 4_096
NESTING = 64
DIGITS = 256
"""Longest run of digits in one number."""
NODES = 512
EXACT_BITS = 1 << 15
"""Largest numerator or denominator computed exactly."""
POWER_BITS = 1 << 13
"""Largest exponent, in bits, of a power taken modulo a prime."""
MAGNITUDE_BITS = 1 << 40
"""Largest binary exponent of a floating value; above it an answer is not a number anyone means."""
EVALUATIONS = 20_000
"""Tree nodes visited by one comparison, sums and products unrolled."""
TERMS = 1_000
"""Terms of a finite sum or product that is unrolled."""
ITEMS = 64
"""Members of a list or set that is compared without order."""


class LimitError(Exception):
    """The answer is too large to judge within the bounds above."""


class ParseError(Exception):
    """The text is not mathematics that this package reads."""


class Undecided(Exception):
    """Evaluation cannot tell; the symbolic worker may."""


class Undefined(Exception):
    """The expression has no value at this point, such as 1/0."""
