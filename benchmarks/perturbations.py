# ruff: noqa: RUF001  (unicode spellings are what some rewritings produce)
"""Rewritings of a gold answer that keep its meaning, and near misses that change it.

Both are produced by rule from any LaTeX answer; `reformatted` must be accepted and `near_misses` refused.
A near miss that might mean the same (a digit of a word, a swapped pair of equal members) is not produced.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from fractions import Fraction

_INTEGER = re.compile(r"-?\d+")
_GROUPED = re.compile(r"-?\d{1,3}(?:(?:,\\!\s?|\{,\}|,)\d{3})+")
_FRACTION = re.compile(r"(-?)\\[dt]?frac\s?\{(\d+)\}\{(\d+)\}")
_DECIMAL = re.compile(r"-?\d*\.\d+")
_PAIR = re.compile(r"(\\left)?([(\[])([^()\[\]]+)(\\right)?([)\]])")
_UNIT = re.compile(r"(?:\s|\\ )*\\(?:text|mbox|textnormal)\s?\{([^{}]*)\}(\^\{?\d\}?)?\.?$")
_MATRIX = re.compile(r"\\begin\{pmatrix\}(.*)\\end\{pmatrix\}", re.DOTALL)
_UNITS = {
    "cm": "km", "meters": "feet", "feet": "inches", "inches": "feet", "miles": "feet", "dollars": "cents",
    "cents": "dollars", "hours": "minutes", "days": "hours", "minutes": "hours", "degrees": "radians",
}  # fmt: skip
_UNICODE = {r"\pi": "π", r"\infty": "∞", r"\cup": "∪", "-": "−", r"\le ": "≤ ", r"\cdot": "·", r"^\circ": "°"}


def thousands(value: str, separator: str) -> str:
    sign, digits = ("-", value[1:]) if value.startswith("-") else ("", value)
    return sign + f"{int(digits):,}".replace(",", separator)


def top_level(text: str, separators: str) -> list[str]:
    """Parts of `text` between separators outside all brackets."""
    parts, level, start = [], 0, 0
    for index, char in enumerate(text):
        level += (char in "([{") - (char in ")]}")
        if level == 0 and char in separators:
            parts.append(text[start:index])
            start = index + 1
    return [*parts, text[start:]]


def is_prose(gold: str) -> bool:
    return bool(re.search(r"\\(?:text|mbox)", gold)) and not re.search(r"\d", gold)


def reformatted(gold: str) -> Iterator[tuple[str, str]]:
    """(name of the rewriting, rewritten answer)."""
    plain = gold.strip()
    yield from _wrapping(plain)
    yield from _numbers(plain)
    yield from _fractions(plain)
    yield from _notation(plain)
    yield from _marks(plain)
    yield from _collections(plain)
    yield from _algebra(plain)


def _wrapping(gold: str) -> Iterator[tuple[str, str]]:
    yield "same", gold
    yield "dollars", f"${gold}$"
    yield "parens", rf"\({gold}\)"
    yield "spaces", f"  {gold} "
    yield "full stop", gold + "."
    yield "displaystyle", rf"\displaystyle {gold}"
    yield "thin spaces", rf"\,{gold}\,"
    if not is_prose(gold) and not re.search(
        r"[=<,z(\[:_E]|\\(?:le|text|mbox|\$|approx|cup|in|pm)", gold.replace(r"\left", "")
    ):
        yield "assignment", f"z = {gold}"


def _numbers(gold: str) -> Iterator[tuple[str, str]]:
    if _INTEGER.fullmatch(gold):
        yield "point zero", gold + ".0"
        yield "over one", rf"\frac{{{gold}}}{{1}}"
        yield "plus zeros", gold + ".00"
        if abs(int(gold)) >= 1000:
            for name, separator in (
                ("comma", ","),
                ("brace comma", "{,}"),
                ("thin comma", r",\!"),
                ("thin space", r"\,"),
                ("space", " "),
            ):
                yield name, thousands(gold, separator)
    if _GROUPED.fullmatch(gold):
        bare = re.sub(r"[^\d-]", "", gold)
        yield "ungrouped", bare
        for name, separator in (
            ("comma", ","),
            ("brace comma", "{,}"),
            ("thin comma", r",\! "),
            ("thin space", r"\,"),
        ):
            yield name, thousands(bare, separator)
    if _DECIMAL.fullmatch(gold):
        yield "trailing zero", gold + "0"
        value = Fraction(gold)
        yield "as fraction", rf"\frac{{{value.numerator}}}{{{value.denominator}}}"
        yield "as quotient", f"{value.numerator}/{value.denominator}"
        if gold.startswith("0."):
            yield "no leading zero", gold[1:]


def _fractions(gold: str) -> Iterator[tuple[str, str]]:
    match = _FRACTION.fullmatch(gold)
    if match:
        sign, top, bottom = match.groups()
        value = Fraction(int(top), int(bottom))
        yield "quotient", f"{sign}{top}/{bottom}"
        yield "spaced quotient", f"{sign}{top} / {bottom}"
        yield "expanded", rf"{sign}\frac{{{3 * int(top)}}}{{{3 * int(bottom)}}}"
        yield "sign on top", rf"\frac{{{sign}{top}}}{{{bottom}}}"
        if value > 1 and value.denominator > 1:
            whole, rest = divmod(value.numerator, value.denominator)
            yield "mixed", rf"{sign}{whole}\frac{{{rest}}}{{{value.denominator}}}"
            yield "plain mixed", f"{sign}{whole} {rest}/{value.denominator}"
        denominator = value.denominator
        while denominator % 2 == 0:
            denominator //= 2
        while denominator % 5 == 0:
            denominator //= 5
        if denominator == 1 and value.denominator > 1 and value.denominator < 10**6:
            digits = f"{float(value):.10f}".rstrip("0")
            if Fraction(digits) == value:
                yield "decimal", sign + digits
    for command in (r"\dfrac", r"\tfrac"):
        if r"\frac" in gold:
            yield command, gold.replace(r"\frac", command)
    short = re.sub(r"\\frac\{(\d)\}\{(\d)\}", r"\\frac\1\2", gold)
    if short != gold:
        yield "short fraction", short


def _notation(gold: str) -> Iterator[tuple[str, str]]:
    if r"\left" in gold:
        yield "no left right", gold.replace(r"\left", "").replace(r"\right", "")
    elif gold.startswith("(") and gold.endswith(")") and gold.count("(") == 1:
        yield "left right", rf"\left{gold[:-1]}\right)"
    squeezed = re.sub(r"(?<![a-zA-Z]) | (?![a-zA-Z])", "", gold)
    if (
        squeezed != gold
        and not is_prose(gold)
        and r"\ " not in gold
        and "text" not in gold
        and "mbox" not in gold
    ):
        yield "squeezed", squeezed
    if not is_prose(gold) and "text" not in gold and "mbox" not in gold and "begin" not in gold:
        yield "spread", re.sub(r"([+*=,]|(?<=[\dx)])-)", r" \1 ", gold) if not _GROUPED.search(gold) else gold
    for command, char in _UNICODE.items():
        if command in gold and "begin" not in gold:
            yield f"unicode {char}", gold.replace(command, char)
    roots = re.sub(r"\\sqrt\s?\{?(\d+)\}?", r"√\1", gold)
    if roots != gold and "[" not in gold:
        yield "unicode root", re.sub(r"\\sqrt\s?\{(\d+)\}", r"√\1", gold)
    brace = re.sub(r"\\sqrt\s(\d)", r"\\sqrt{\1}", gold)
    if brace != gold:
        yield "braced root", brace
    matrix = _MATRIX.fullmatch(gold)
    if matrix:
        yield "bmatrix", rf"\begin{{bmatrix}}{matrix.group(1)}\end{{bmatrix}}"
        yield "array", rf"\left(\begin{{array}}{{ccc}}{matrix.group(1)}\end{{array}}\right)"
        yield "last row end", rf"\begin{{pmatrix}}{matrix.group(1)}\\\end{{pmatrix}}"
    based = re.fullmatch(r"(-?\d+)_\{?(\d+)\}?", gold)
    if based:
        yield "braced base", f"{based.group(1)}_{{{based.group(2)}}}"


def _marks(gold: str) -> Iterator[tuple[str, str]]:
    unit = _UNIT.search(gold)
    if unit and re.search(r"\d", gold[: unit.start()]) and "," not in gold and ":" not in gold:
        yield "no unit", gold[: unit.start()]
        yield (
            "mathrm unit",
            gold[: unit.start()] + rf"\ \mathrm{{{unit.group(1).strip()}}}" + (unit.group(2) or ""),
        )
        yield "plain unit", gold[: unit.start()] + " " + unit.group(1).strip() + (unit.group(2) or "")
    elif unit and unit.start() == 0 and gold.endswith("}"):
        inside = unit.group(1)
        yield "no text", inside
        yield "textbf", rf"\textbf{{{inside}}}"
        yield "mathrm", rf"\mathrm{{{inside}}}"
        if len(inside) > 3 and "," not in inside:
            yield "lower case", inside.lower()
    if gold.endswith(r"\%"):
        number = gold[:-2].strip()
        yield from (
            ("no percent", number),
            ("plain percent", number + "%"),
            ("percent word", number + r"\text{ percent}"),
        )
        if re.fullmatch(r"[\d.]+", number):
            yield "as decimal", str(float(Fraction(number) / 100))
    if gold.startswith(r"\$") and "approx" not in gold:
        number = gold[2:].strip()
        yield from (
            ("no currency", number),
            ("plain currency", "$" + number),
            ("dollars word", number + r" \text{ dollars}"),
        )
    degrees = re.fullmatch(r"([-\d.]+|\\frac\{\d+\}\{\d+\})\^\{?\\circ\}?\.?", gold)
    if degrees:
        number = degrees.group(1)
        for name, mark in (
            ("braced circ", r"^{\circ}"),
            ("circ", r"^\circ"),
            ("degree sign", "°"),
            ("no degree", ""),
            ("degrees", r"\text{ degrees}"),
        ):
            yield name, number + mark


def _collections(gold: str) -> Iterator[tuple[str, str]]:
    parts = [part.strip() for part in top_level(gold, ",")]
    marked = _GROUPED.search(gold) or re.search(r"text|\\!|\\,|;|dots|=", gold)
    if len(parts) > 1 and not marked and "" not in parts:
        yield "reversed list", ", ".join(reversed(parts))
        yield "and", ", ".join(parts[:-1]) + r" \text{ and } " + parts[-1]
        yield "set", r"\{" + ", ".join(parts) + r"\}" if len(set(parts)) == len(parts) else gold
    pieces = gold.split(r"\cup")
    if len(pieces) > 1:
        yield "reversed union", r"\cup ".join(piece.strip() for piece in reversed(pieces))
        yield "member of union", rf"x \in {gold}"
    match = _PAIR.fullmatch(gold)
    if (
        match
        and match.group(2) == "["
        and "infty" not in gold
        and len(inside := top_level(match.group(3), ",")) == 2
    ):
        upper = r"\le" if match.group(5) == "]" else "<"
        yield "inequality", rf"{inside[0]} \le x {upper} {inside[1]}"
    assignment = re.fullmatch(r"([a-zA-Z]) ?= ?(.+)", gold)
    if assignment and "=" not in assignment.group(2):
        yield "flipped equation", f"{assignment.group(2)} = {assignment.group(1)}"
        if not re.search(r"[a-zA-Z]", re.sub(r"\\[a-z]+", "", assignment.group(2))):
            yield "value only", assignment.group(2)


def _algebra(gold: str) -> Iterator[tuple[str, str]]:
    if re.search(
        r"[,=<>:_\[\]]|\\(?:text|mbox|cup|begin|pm|in|le|ge|circ|%|\$|infty|triangle|approx|{|!)", gold
    ) or is_prose(gold):
        return
    terms = re.findall(r"[+-]?(?:[^-+({]|\([^()]*\)|\{(?:[^{}]|\{[^{}]*\})*\})+", gold.replace(" ", "~"))
    terms = [term.replace("~", " ").strip() for term in terms]
    if len(terms) > 1 and "".join(terms).replace(" ", "") == gold.replace(" ", ""):
        flipped = [term if term[0] in "+-" else "+" + term for term in reversed(terms)]
        yield "reversed terms", "".join(flipped).lstrip("+")
    if re.fullmatch(r"[-\da-z+^(){} ]+", gold) and re.search(r"[a-z]", gold) and "e" not in gold:
        yield "explicit products", re.sub(r"(?<=\d)(?=[a-z(])", "*", gold)
        yield "python powers", re.sub(r"\^\{?(\d+)\}?", r"**\1", re.sub(r"(?<=\d)(?=[a-z(])", "*", gold))
    plain = re.fullmatch(r"(-?\d*) ?\\sqrt\s?\{?(\d+)\}?", gold)
    if plain:
        factor, root = plain.groups()
        yield "plain root", f"{factor}{'*' if factor.strip('-') else ''}sqrt({root})"
        value = int(factor + "1" if factor in ("", "-") else factor)
        yield "one root", ("-" if value < 0 else "") + rf"\sqrt{{{value * value * int(root)}}}"
    if r"\pi" in gold and "frac" not in gold:
        yield (
            "plain pi",
            re.sub(r"(?<=\d) ?\\pi", "*pi", gold) if re.fullmatch(r"-?\d+ ?\\pi", gold) else gold,
        )


def near_misses(gold: str) -> Iterator[tuple[str, str]]:
    """(name of the change, changed answer)."""
    plain = gold.strip()
    if not plain or is_prose(plain):
        letter = re.fullmatch(r"\\text\{\(?([A-J])\)?\}", plain)
        if letter:
            yield (
                "other choice",
                plain.replace(letter.group(1), "ABCDEFGHIJA"["ABCDEFGHIJ".index(letter.group(1)) + 1]),
            )
        return
    yield from _digit_changes(plain)
    yield from _sign_changes(plain)
    yield from _structure_changes(plain)


def _digit_changes(gold: str) -> Iterator[tuple[str, str]]:
    spots = list(re.finditer(r"\d", gold))
    for place, match in enumerate(spots[:6]):
        digit = int(match.group())
        changed = gold[: match.start()] + str((digit + 1) % 10) + gold[match.end() :]
        if digit != 0 and not (digit == 9 and place == 0):
            yield f"digit {place}", changed
    if _INTEGER.fullmatch(gold) and int(gold) != 0:
        value = int(gold)
        for name, other in (
            ("plus one", value + 1),
            ("minus one", value - 1),
            ("tenfold", 10 * value),
            ("hundredfold", 100 * value),
            ("thousandfold", 1000 * value),
        ):
            yield name, str(other)
        yield "tenth", str(Fraction(value, 10)) if value % 10 else str(value // 10)
        yield "hundredth", f"{value / 100}"
        yield "with root", rf"{gold}\sqrt{{2}}"
        yield "with pi", rf"{gold}\pi"
        yield "with variable", f"{gold}x"
        yield "percent of", f"{gold}.5"
        yield "mixed", rf"{gold}\frac{{1}}{{2}}"
        yield "factorial", f"({gold})!" if abs(value) > 2 else f"{value + 7}"
        yield "list", f"{gold}, {value + 2}"
        yield "hedge", rf"{gold} \text{{ or }} {value + 1}"
    if _DECIMAL.fullmatch(gold):
        yield "more digits", gold + "1"
        yield "shifted point", str(Fraction(gold) * 10)
    match = _FRACTION.fullmatch(gold)
    if match:
        sign, top, bottom = match.groups()
        if top != bottom:
            yield "upside down", rf"{sign}\frac{{{bottom}}}{{{top}}}"
        yield "top only", sign + top
        value = float(Fraction(int(top), int(bottom)))
        if Fraction(f"{value:.3f}") != Fraction(int(top), int(bottom)):
            yield "rounded", f"{sign}{value:.3f}"
            yield "rounded to two", f"{sign}{value:.2f}"


def _sign_changes(gold: str) -> Iterator[tuple[str, str]]:
    zero = re.fullmatch(r"[-+0.,_\\! ]+", gold)
    if gold.startswith("-") and not zero and "," not in gold:
        yield "sign dropped", gold[1:]
    elif (
        re.match(r"\d|\\frac|\\sqrt|\\pi", gold)
        and not zero
        and "," not in gold
        and "_" not in gold
        and ":" not in gold
    ):
        yield "negated", f"-({gold})" if re.search(r"[+-]", gold) and "text" not in gold else f"-{gold}"
    for match in list(re.finditer(r"(?<=[\w)}]) ?([+-]) ?(?=[\w\\(])", gold))[:3]:
        if re.search(r"\\(?:pm|cos|phantom)", gold):
            continue
        flipped = "-" if match.group(1) == "+" else "+"
        yield "sign flipped", gold[: match.start(1)] + flipped + gold[match.end(1) :]
    if r"\sqrt" in gold and "," not in gold:
        dropped = re.sub(r"\\sqrt\s?", "", gold, count=1)
        if not re.search(r"\\sqrt\s?\{?1\}?(?!\d)", gold) and "[" not in gold:
            yield "root dropped", dropped
    if r"\pi" in gold:
        yield "pi dropped", re.sub(r"\\pi", "1" if not re.search(r"\d ?\\pi", gold) else "", gold, count=1)
    for match in list(re.finditer(r"\^\{?(\d+)\}?", gold))[:2]:
        if r"\text" not in gold and r"\mbox" not in gold:
            yield "exponent", gold[: match.start(1)] + str(int(match.group(1)) + 1) + gold[match.end(1) :]


def _structure_changes(gold: str) -> Iterator[tuple[str, str]]:
    match = _PAIR.fullmatch(gold)
    if match:
        left, opener, inside, right, closer = match.groups()
        parts = [part.strip() for part in top_level(inside, ",")]
        if len(parts) > 1 and parts != parts[::-1] and r"\right" not in inside:
            yield "swapped", gold.replace(inside, ", ".join(reversed(parts)))
            yield (
                "member dropped",
                gold.replace(inside, ", ".join(parts[:-1])) if len(parts) > 2 else parts[0],
            )
        if len(parts) == 2 and opener + closer != "()":
            other = "(" if opener == "[" else "["
            yield "other left end", (left or "") + other + inside + (right or "") + closer
            yield (
                "other right end",
                (left or "") + opener + inside + (right or "") + (")" if closer == "]" else "]"),
            )
    parts = [part.strip() for part in top_level(gold, ",")]
    if (
        len(parts) > 1
        and not _GROUPED.search(gold)
        and r"\!" not in gold
        and r"\," not in gold
        and "text" not in gold
    ):
        yield "member dropped", ", ".join(parts[:-1])
        yield "member added", ", ".join([*parts, "77"])
    pieces = gold.split(r"\cup")
    if len(pieces) > 1:
        yield "piece dropped", r"\cup".join(pieces[:-1])
        yield "intersection", r"\cap".join(pieces)
    unit = _UNIT.search(gold)
    if unit and unit.group(1).strip() in _UNITS:
        yield "other unit", gold.replace(unit.group(1).strip(), _UNITS[unit.group(1).strip()])
    based = re.fullmatch(r"(-?\d+)_\{?(\d+)\}?", gold)
    if based:
        yield "other base", f"{based.group(1)}_{int(based.group(2)) + 1}"
    terms = re.split(r"(?<=[\w)}]) ?[+-] ?(?=[\w\\])", gold)
    if len(terms) > 1 and not re.search(r"[,=(\[{]", gold) and terms[-1] != "0":
        yield "term dropped", gold[: gold.rindex(terms[-1])].rstrip(" +-")
    if re.search(r"\\le |\\leq", gold):
        yield "strict", re.sub(r"\\leq? ", "< ", gold, count=1)
    matrix = _MATRIX.fullmatch(gold)
    if matrix and "\\\\" in matrix.group(1):
        rows = [row for row in matrix.group(1).split("\\\\") if row.strip()]
        if [r.split() for r in rows] != [r.split() for r in rows[::-1]]:
            swapped = r" \\ ".join(reversed(rows))
            yield "rows swapped", rf"\begin{{pmatrix}}{swapped}\end{{pmatrix}}"
