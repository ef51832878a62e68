"""Units, currencies and number words, and when two of them may stand beside equal numbers."""

from __future__ import annotations

from fractions import Fraction

from rewards.wordsets import word_list, word_set

F = Fraction

# name: (dimension, factor to the base unit of that dimension, spellings)
_TABLE: tuple[tuple[str, Fraction, str], ...] = (
    ("length", F(1, 1000), "mm millimeter millimetre"),
    ("length", F(1, 100), "cm centimeter centimetre"),
    ("length", F(1, 10), "dm decimeter decimetre"),
    ("length", F(1), "m meter metre"),
    ("length", F(1000), "km kilometer kilometre"),
    ("length", F(254, 10000), "in inch inches"),
    ("length", F(3048, 10000), "ft foot feet"),
    ("length", F(9144, 10000), "yd yard"),
    ("length", F(1609344, 1000), "mi mile"),
    ("mass", F(1, 1000), "mg milligram"),
    ("mass", F(1), "g gram"),
    ("mass", F(1000), "kg kilogram"),
    ("mass", F(45359237, 100000), "lb lbs pound"),
    ("mass", F(45359237, 1600000), "oz ounce"),
    ("mass-large", F(1), "ton tonne"),
    ("time", F(1), "s sec second"),
    ("time", F(60), "min minute"),
    ("time", F(3600), "h hr hour"),
    ("time", F(86400), "day"),
    ("time", F(604800), "week wk"),
    ("calendar", F(1), "month"),
    ("calendar", F(12), "year yr"),
    ("money", F(1), "dollar usd buck"),
    ("money", F(1, 100), "cent"),
    ("euro", F(1), "euro eur"),
    ("sterling", F(1), "gbp sterling"),
    ("yen", F(1), "yen yuan rmb"),
    ("rupee", F(1), "rupee"),
    ("angle", F(1), "degree deg"),
    ("radian", F(1), "radian rad"),
    ("volume", F(1), "l liter litre"),
    ("volume", F(1, 1000), "ml milliliter millilitre"),
    ("volume-us", F(1), "gallon gal"),
    ("volume-us", F(1, 4), "quart qt"),
    ("volume-us", F(1, 8), "pint pt"),
    ("volume-us", F(1, 16), "cup"),
    ("area-acre", F(1), "acre"),
    ("area-hectare", F(1), "hectare ha"),
    ("clock-am", F(1), "am a.m."),
    ("clock-pm", F(1), "pm p.m."),
    ("celsius", F(1), "celsius"),
    ("fahrenheit", F(1), "fahrenheit"),
    ("kelvin", F(1), "kelvin"),
    ("energy", F(1), "j joule"),
    ("power", F(1), "w watt"),
    ("force", F(1), "n newton"),
)  # fmt: skip

_UNITS: dict[str, tuple[str, Fraction]] = {}
for _dimension, _factor, _spellings in _TABLE:
    for _word in _spellings.split():
        _UNITS[_word] = (_dimension, _factor)
        if len(_word) > 2 and "." not in _word:
            _UNITS[_word + "s"] = (_dimension, _factor)

_GENERIC = word_set("unit units")
_POWERS = {"square": 2, "sq": 2, "squared": 2, "cubic": 3, "cu": 3, "cubed": 3}
BARE_UNITS = word_set(
    "sq cu mm cm dm km ft yd mi mg kg lb lbs oz hr min sec ml mph am pm usd eur deg rad inch inches feet "
    "foot yard yards mile miles meter meters gram grams hour hours day days week weeks month months year "
    "years "
    "dollar dollars cent cents euro euros degree degrees unit units second seconds minute minutes"
)
"""Words that are units, not products of letters, when they stand outside \\text{}."""

_ONES = word_list(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen"
)
_TENS = word_list("twenty thirty forty fifty sixty seventy eighty ninety")
NUMBER_WORDS: dict[str, int] = {word: value for value, word in enumerate(_ONES)}
NUMBER_WORDS |= {word: 20 + 10 * index for index, word in enumerate(_TENS)}
NUMBER_WORDS |= {"hundred": 100, "thousand": 1000, "million": 10**6}
PARTS = {"half": 2, "halve": 2, "quarter": 4, "fourth": 4, "third": 3, "fifth": 5, "sixth": 6, "seventh": 7, "eighth": 8,
         "ninth": 9, "tenth": 10, "twelfth": 12, "twentieth": 20, "hundredth": 100, "thousandth": 1000}  # fmt: skip
"""Denominators in words; their plurals end in s."""
SCALES = {"hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9, "trillion": 10**12}


def part_of(word: str) -> int:
    """The denominator that "thirds" names, 0 if it names none."""
    return PARTS.get(word, 0) or (PARTS.get(word[:-1], 0) if word.endswith("s") else 0)


_SPEEDS = {"mph": ("mile", "per", "hour"), "kph": ("km", "per", "hour"), "kmh": ("km", "per", "hour")}


def spelt_out(words: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(part for word in words for part in _SPEEDS.get(word.lower(), (word,)))


class Unit:
    """Powers of dimensions and the factor to their base units; None for nouns and "units"."""

    __slots__ = ("dimensions", "factor", "top")

    def __init__(self, dimensions: dict[str, int], factor: Fraction, top: Fraction) -> None:
        self.dimensions = dimensions
        self.factor = factor
        self.top = top  # the factor without what follows "per"


def read_unit(words: tuple[str, ...]) -> Unit | None:
    """The unit that `words` name, or None if they name none (a counting noun, "units", nothing).

    A word of the form "^3" raises the unit before it; "square" and "cubic" raise the one after.
    """
    dimensions: dict[str, int] = {}
    factor = top = F(1)
    power, sign = 1, 1
    last: tuple[str, Fraction, int] | None = None
    for raw in spelt_out(words):
        word = raw.lower().strip(".,") if raw not in ("a.m.", "p.m.") else raw
        if word.startswith("^") and word[1:].isdigit() and last is not None:
            extra = (int(word[1:]) % 10 - 1) * last[2]
            dimensions[last[0]] = dimensions.get(last[0], 0) + extra
            factor *= last[1] ** extra
        elif word in _POWERS:
            if word in ("squared", "cubed") and last is not None:
                extra = (_POWERS[word] - 1) * last[2]
                dimensions[last[0]] = dimensions.get(last[0], 0) + extra
                factor *= last[1] ** extra
            else:
                power = _POWERS[word]
        elif word in ("per", "/"):
            sign = -1
        elif word in _UNITS:
            name, scale = _UNITS[word]
            if last is not None and last[0] == name and sign == last[2] and power == 1:
                continue  # "$5 dollars" names its unit twice
            exponent = power * sign
            dimensions[name] = dimensions.get(name, 0) + exponent
            factor *= scale**exponent
            top *= scale**exponent if exponent > 0 else F(1)
            last = (name, scale, sign)
            power = 1
        elif word in _GENERIC:
            return None
    return Unit(dimensions, factor, top) if dimensions else None


def conversion(gold: tuple[str, ...], given: tuple[str, ...]) -> tuple[Fraction, Fraction] | None:
    """Factors by which the two values must be multiplied to compare, or None if the units conflict.

    Counting nouns and a missing unit are compatible with everything: a question that asks for a
    length in metres is answered by the number alone.
    """
    left, right = read_unit(gold), read_unit(given)
    if left is None or right is None:
        return F(1), F(1)
    if left.dimensions != right.dimensions:
        dropped = [{k: v for k, v in side.dimensions.items() if v > 0} for side in (left, right)]
        one_bare = dropped[0] == left.dimensions or dropped[1] == right.dimensions
        if not (one_bare and dropped[0] == dropped[1]):
            return None
        return left.top, right.top  # "$5" and "$5 per day" are compatible
    return left.factor, right.factor


COMPOUND = "&"
"""Stands among the words of a value said in two units, which a bare number does not answer."""
_COMPOUNDS = {
    "length": ("yard foot inch", "km m cm mm", "mile yard", "mile foot", "m cm"), "mass": ("lb oz", "kg g"),
    "time": ("week day hour minute second", "hour second"), "calendar": ("year month",), "money": ("dollar cent",),
    "volume": ("l ml",), "volume-us": ("gallon quart pint cup",),
}  # fmt: skip


def compound(large: tuple[str, ...], small: tuple[str, ...]) -> Fraction | None:
    """How many `small` make one `large` where people say both: 12 for feet and inches, else None."""
    first, second = read_unit(large), read_unit(small)
    if first is None or second is None or first.dimensions != second.dimensions or len(first.dimensions) != 1:
        return None
    ((dimension, power),) = first.dimensions.items()
    if power != 1:
        return None
    for chain in _COMPOUNDS.get(dimension, ()):
        factors = [_UNITS[word][1] for word in chain.split()]
        if first.factor in factors and second.factor in factors and first.factor > second.factor:
            return first.factor / second.factor
    return None
