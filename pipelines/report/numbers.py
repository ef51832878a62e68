"""Numbers as people read them."""

from __future__ import annotations

import math
import re
from typing import Any

DASH = "\u2013"
MINUS = "\u2212"


def number(value: Any) -> str:
    """Up to four significant digits; whole numbers with thousands separated; a dash for what is no number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return DASH if value is None else str(value)
    if not math.isfinite(value):
        return str(value)
    if value == int(value) and abs(value) < 1e15:
        text = f"{int(value):,}"
    elif 1e-3 <= abs(value) < 1e7:
        text = f"{value:,.4g}" if abs(value) < 1e4 else f"{value:,.0f}"
    else:
        text = re.sub(r"\.?0*e([+-])0*(\d+)", r"e\1\2", f"{value:.2e}").replace("e+", "e")
    return text.replace("-", MINUS)


def short(value: float) -> str:
    """Three decimals at most: for means between 0 and some."""
    return f"{value:.3f}".rstrip("0").rstrip(".").replace("-", MINUS) if abs(value) < 100 else number(value)


def percent(value: float | None, digits: int = 1) -> str:
    """A share as a percentage."""
    return DASH if value is None else f"{100 * value:.{digits}f}%".replace("-", MINUS)


def points(value: float) -> str:
    """A difference of shares in percentage points, with its sign."""
    return f"{100 * value:+.1f}".replace("-", MINUS)


def interval(low: float | None, high: float | None, digits: int = 1) -> str:
    """An interval of shares, as [12.0%, 15.5%]."""
    return DASH if low is None or high is None else f"[{percent(low, digits)}, {percent(high, digits)}]"


def seconds(value: float | None) -> str:
    """A duration: 0.4 s, 42 s, 3 min 05 s, 2 h 10 min, 1 d 4 h."""
    if value is None:
        return DASH
    if value < 9.95:
        return f"{value:.1f} s"
    whole = round(value)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(round(value / 60), 60)
    if hours < 24:
        return f"{hours} h {minutes:02d} min"
    return f"{hours // 24} d {hours % 24} h"


def size(value: float | None) -> str:
    """Bytes in MB or GB (powers of ten)."""
    if value is None:
        return DASH
    return f"{value / 1e9:.2f} GB" if value >= 1e9 else f"{value / 1e6:.0f} MB"
