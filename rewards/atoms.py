"""The atoms of the grammar: numbers, names, functions, brackets, matrices, sums."""

from __future__ import annotations

from fractions import Fraction

from rewards import nodes as n
from rewards.lexer import FUNCTIONS
from rewards.limits import ParseError
from rewards.nodes import Node
from rewards.parser import RELATIONS, Parser, literal
from rewards.units import NUMBER_WORDS, SCALES, part_of
from rewards.wordsets import word_set

_ALIASES = {
    "asin": "arcsin", "acos": "arccos", "atan": "arctan", "asinh": "arcsinh", "acosh": "arccosh",
    "atanh": "arctanh", "ln": "log", "tg": "tan", "ctg": "cot", "arctg": "arctan", "sgn": "sign",
}  # fmt: skip
_INVERSES = {
    "sin": "arcsin", "cos": "arccos", "tan": "arctan", "cot": "arccot", "sec": "arcsec", "csc": "arccsc",
    "sinh": "arcsinh", "cosh": "arccosh", "tanh": "arctanh",
}  # fmt: skip
_CONSTANTS = {"pi": "pi", "infty": "oo", "emptyset": "empty", "varnothing": "empty", "empty": "empty",
              "imath": "i", "mathrm{e}": "e"}  # fmt: skip
_SETS = frozenset("RZNQC")
_APPLIED = frozenset("fghFGH")
_SPELT = {"varphi": "phi", "varepsilon": "epsilon", "vartheta": "theta", "ell": "ell", "varrho": "rho"}
_FOLDS = {"sum": "sum", "prod": "prod", "int": "int", "lim": "lim"}
_UNREADABLE = word_set(
    "to rightarrow mapsto implies Rightarrow Leftrightarrow iff therefore because not notin subset subseteq "
    "forall exists mid parallel perp sim cong land lor wedge vee oplus otimes prime pmod bmod mod over atop "
    "substack oint longrightarrow leftarrow stackrel overset underset underbrace overbrace choose iint iiint "
    "partial nabla neg end hline cline multicolumn"
)
_CLOSERS = {"(": (")", "]", "["), "[": ("]", ")"), "lbrack": ("]", ")", "rbrack"), "]": ("[", "]", ")"),
            "langle": ("rangle",), "{": ("}",), "lbrace": ("rbrace", "}")}  # fmt: skip
_WRAPPERS = {"lfloor": ("rfloor", "floor"), "lceil": ("rceil", "ceil"), "lvert": ("rvert", "abs"),
             "lVert": ("rVert", "norm")}  # fmt: skip


def atom(p: Parser) -> Node:
    """The operand at the cursor. Raises ParseError where none can start."""
    token = p.take()
    if token.kind == "num":
        return literal(token.text)
    if token.kind == "name":
        return name(p, token.text)
    if token.kind == "word":
        return word(p, token.text)
    if token.kind == "op":
        if token.text == "{":
            p.at -= 1
            return p.group()
        if token.text in ("(", "[", "]"):
            return bracket(p, token.text)
        if token.text == "|":
            return bars(p, "|", "abs")
        if token.text in ("-", "+"):
            inner = p.factor()
            return n.negate(inner) if token.text == "-" else inner
        raise ParseError(f"unexpected {token.text}")
    return command(p, token.text)


def command(p: Parser, text: str) -> Node:
    if text in ("frac", "frac*"):
        top = p.argument()
        return n.divide(top, p.argument())
    if text in ("sqrt", "cbrt"):
        return root(p, text)
    if text == "binom":
        if p.text() == "(":
            return n.Func("binom", arguments(p))
        top = p.argument()
        return n.Func("binom", (top, p.argument()))
    if text in FUNCTIONS:
        return function(p, _ALIASES.get(text, text), text)
    if text in _CONSTANTS:
        return n.Const(_CONSTANTS[text])
    if text == "mathbb" or text == "Bbb":
        return number_set(p)
    if text in ("{", "langle", "lbrack", "lbrace"):
        return bracket(p, text)
    if text in _WRAPPERS:
        closer, meaning = _WRAPPERS[text]
        return wrapped(p, closer, meaning)
    if text == "|":
        return bars(p, "|", "norm")
    if text.startswith("begin:"):
        return environment(p, text[6:])
    if text in _FOLDS:
        return fold(p, _FOLDS[text])
    if text in ("angle", "triangle", "measuredangle", "odot", "widehat"):
        return n.Sym(text + "".join(figure_letters(p)))
    if text.startswith("currency:"):
        p.words.append(text[9:])
        return p.factor()
    if text == "tau":
        return subscripted(p, "tau")
    if text in _UNREADABLE or text in RELATIONS or text.startswith("end:") or not text.isalpha():
        raise ParseError(f"unexpected {text}")
    return subscripted(p, _SPELT.get(text, text))


def figure_letters(p: Parser) -> list[str]:
    letters: list[str] = []
    while (token := p.peek()) is not None and (
        (token.kind in ("name", "word") and token.text.isupper()) or (not letters and token.kind == "num")
    ):
        letters.append(token.text)
        p.at += 1
    return letters


def name(p: Parser, letter: str) -> Node:
    if letter == "a" and (half := fraction_words(p, letter)) is not None:
        return n.number(half)
    primes = 0
    while p.text() == "'":
        p.at += 1
        primes += 1
    letter += "'" * primes
    if letter == "e" and p.text() != "_":
        return n.Const("e")
    if letter == "i" and p.text() != "_":
        return n.Const("i")
    base = letter.rstrip("'")
    if base in _APPLIED and p.text() == "(":
        return n.Func(f"apply:{letter}", arguments(p))
    if base in _APPLIED and [p.text(k) for k in (0, 1, 2, 4, 5)] == ["^", "{", "-", "}", "("]:
        p.at += 5
        return n.Func(f"apply:{letter}^-1", arguments(p))
    return subscripted(p, letter)


def subscripted(p: Parser, symbol: str) -> Node:
    """A symbol; a subscript with letters makes it a sequence: F_{n-1} is the function F_ at n-1."""
    if p.text() != "_":
        return n.Sym(symbol)
    p.at += 1
    index = p.argument(whole_number=True)
    match index:
        case n.Num(value, _):
            return n.Sym(f"{symbol}_{value}")
        case n.Sym(inner):
            return (
                n.Func(f"apply:{symbol}_", (index,))
                if inner in ("n", "k", "m", "j")
                else n.Sym(f"{symbol}_{inner}")
            )
        case n.Text(words):
            return n.Sym(f"{symbol}_{words}")
        case n.Const(inner):
            return n.Sym(f"{symbol}_{inner}")
    if not n.is_expression(index):
        raise ParseError("subscript")
    return n.Func(f"apply:{symbol}_", (index,))


def word(p: Parser, first: str) -> Node:
    """Words where a value should stand: a number in words, or text."""
    low = first.lower()
    if low in ("and", "or"):
        raise ParseError("joiner")
    if low in NUMBER_WORDS or low in SCALES or "-" in low or low in ("half", "a"):
        value = fraction_words(p, low)
        if value is None and low != "a" and low != "half":
            value = number_words(p, low)
        if value is not None:
            return n.number(value)
    words = [first]
    while (token := p.peek()) is not None and token.kind == "word" and token.text not in ("and", "or"):
        words.append(token.text)
        p.at += 1
    if len(words) == 1 and len(first) == 1:
        return n.Sym(first)
    return n.Text(" ".join(words).lower())


def fraction_words(p: Parser, first: str) -> Fraction | None:
    """The value of "one half", "two-thirds", "a half", "two and a half", if these words are all there is."""
    words = first.split("-")
    ahead = 0
    while (token := p.peek(ahead)) is not None and token.kind in ("word", "name") and ahead < 6:
        words += token.text.lower().split("-")
        ahead += 1
    if token is not None or not part_of(words[-1]):
        return None
    whole, part = 0, words[:-1]
    if "and" in words:
        cut = words.index("and")
        value = cardinal(words[:cut])
        if value is None:
            return None
        whole, part = value, words[cut + 1 : -1]
    top = 1 if part in (["a"], ["one"]) or (not part and words == ["half"]) else cardinal(part)
    if top is None or top == 0:
        return None
    p.at += ahead
    return whole + Fraction(top, part_of(words[-1]))


def cardinal(words: list[str]) -> int | None:
    """Small numbers in words: seven, twenty one."""
    values = [NUMBER_WORDS.get(word, 1000) for word in words]
    if len(values) == 1 and values[0] < 100:
        return values[0]
    if len(values) == 2 and 20 <= values[0] < 100 and values[0] % 10 == 0 and 0 < values[1] < 10:
        return values[0] + values[1]
    return None


def number_words(p: Parser, first: str) -> int | None:
    """The value of "four", "twenty-one", "three hundred"; None if `first` only looks like one."""
    total, current = 0, 0
    pending = first.split("-")
    seen = False
    while True:
        if not all(part in NUMBER_WORDS or part in SCALES for part in pending):
            if not seen:
                return None
            p.at -= 1
            break
        for part in pending:
            scale = SCALES.get(part)
            if scale == 100:
                current = max(current, 1) * 100
            elif scale:
                total += max(current, 1) * scale
                current = 0
            else:
                current += NUMBER_WORDS[part]
        seen = True
        token = p.peek()
        if token is None or token.kind != "word":
            break
        p.at += 1
        pending = token.text.lower().split("-")
    return total + current


def root(p: Parser, text: str) -> Node:
    degree: Node = n.number(3) if text == "cbrt" else n.number(2)
    if text == "sqrt" and p.text() == "[":
        p.at += 1
        saved, p.bar_stop = p.bar_stop, False
        degree = p.sum()
        p.bar_stop = saved
        p.expect("]")
    if p.text() == "(":
        (radicand,) = one(arguments(p))
    else:
        radicand = p.argument(whole_number=True)
    return n.Pow(radicand, n.HALF) if degree == n.number(2) else n.Func("root", (radicand, degree))


def one(args: tuple[Node, ...]) -> tuple[Node]:
    if len(args) != 1:
        raise ParseError("arguments")
    return (args[0],)


def arguments(p: Parser) -> tuple[Node, ...]:
    """`(a, b, ...)` after a function name."""
    p.expect("(")
    saved_stop, p.bar_stop = p.bar_stop, False
    saved_words = p.words
    inside = p.listing((")",))
    p.words = saved_words
    p.expect(")")
    p.bar_stop = saved_stop
    return inside.items if isinstance(inside, n.Listing) else (inside,)


def function(p: Parser, meaning: str, written: str) -> Node:
    """A named function with the powers and subscripts that stand before its argument."""
    power: Node | None = None
    base: Node | None = n.number(10) if written in ("lg",) else None
    while p.text() in ("^", "_", "**"):
        if p.take().text == "_":
            base = p.argument(whole_number=True)
        else:
            power = p.argument(whole_number=True)
    if power == n.MINUS_ONE or power == n.negate(n.ONE):
        if meaning not in _INVERSES:
            raise ParseError("inverse")
        meaning, power = _INVERSES[meaning], None
    args = function_arguments(p)
    if meaning == "lg":
        meaning = "log"
    if base is not None:
        if meaning != "log":
            raise ParseError("subscript of a function")
        args = (*args, base)
    if meaning == "deg" or meaning == "exp":
        one(args)
    node: Node = n.Pow(n.Const("e"), args[0]) if meaning == "exp" else n.Func(meaning, args)
    return n.Pow(node, power) if power is not None else node


def function_arguments(p: Parser) -> tuple[Node, ...]:
    if p.text() == "(":
        return arguments(p)
    factors: list[Node] = []
    sign = p.sign()
    while True:
        if factors and not (p.starts_factor() and not starts_function(p)):
            break
        if factors and p.text() in ("(", "["):
            break
        factors.append(p.factor())
    node = factors[0] if len(factors) == 1 else n.Mul(tuple(factors))
    return (p.signed(sign, node),)


def starts_function(p: Parser) -> bool:
    return p.text() in FUNCTIONS and p.text() not in ("sqrt", "cbrt", "binom")


def number_set(p: Parser) -> Node:
    p.accept("{")
    token = p.take()
    if token.text not in _SETS:
        raise ParseError("set")
    if p.text() == "}":
        p.at += 1
    if p.text() in ("^", "_"):
        p.at += 1
        suffix = p.argument(whole_number=True)
        return n.Const(f"{token.text}:{suffix}")
    return n.Const(token.text)


def bracket(p: Parser, opener: str) -> Node:
    """Anything in round, square, angle or set brackets."""
    closers = _CLOSERS[opener]
    is_set = opener in ("{", "lbrace")
    saved = p.bar_stop, p.in_braces, p.words
    p.bar_stop, p.in_braces = is_set, is_set
    items: list[Node] = []
    while p.text() not in closers or not p.text():
        items.append(p.item())
        if is_set and (p.text() in ("|", ":", "mid", "colon")):
            p.at += 1
            p.bar_stop, p.in_braces = False, False
            condition = p.listing(closers)
            items = [n.Func("such_that", (items[0], condition))]
            break
        if not p.joiner():
            break
    p.bar_stop, p.in_braces, p.words = saved
    closer = p.expect(*closers)
    if is_set:
        if len(items) == 1 and isinstance(items[0], n.Func) and items[0].name == "such_that":
            return items[0].args[1]
        return n.Braces(tuple(items)) if items else n.Const("empty")
    return sequence(opener, items, closer)


def sequence(opener: str, items: list[Node], closer: str) -> Node:
    shape = {"lbrack": "[", "langle": "<", "]": "("}.get(opener, opener)
    end = {"rbrack": "]", "rangle": ">", "[": ")"}.get(closer, closer)
    if opener == "]" and closer == "]":
        end = "]"
    if not items:
        raise ParseError("empty brackets")
    if len(items) == 1:
        if (shape, end) not in (("(", ")"), ("[", "]")):
            raise ParseError("brackets")
        return items[0]
    return n.Seq(shape, tuple(items), end)


def bars(p: Parser, closer: str, meaning: str) -> Node:
    return wrapped(p, closer, meaning, bar_stop=True)


def wrapped(p: Parser, closer: str, meaning: str, bar_stop: bool = False) -> Node:
    saved, p.bar_stop = p.bar_stop, bar_stop
    inside = p.sum()
    p.bar_stop = saved
    p.expect(closer)
    if not n.is_expression(inside):
        if isinstance(inside, n.Matrix) and meaning == "abs":
            return n.Func("det", (inside,))
        if not isinstance(inside, n.Seq) or meaning == "floor":
            raise ParseError("bars")
    return n.Func(meaning, (inside,))


def environment(p: Parser, kind: str) -> Node:
    """A matrix, or the lines of an alignment as a list."""
    listing = kind in ("cases", "aligned", "gathered", "align", "split")
    if not listing and kind not in (
        "matrix",
        "pmatrix",
        "bmatrix",
        "Bmatrix",
        "vmatrix",
        "Vmatrix",
        "array",
        "smallmatrix",
    ):
        raise ParseError(kind)
    saved, p.bar_stop = p.bar_stop, False
    rows: list[tuple[Node, ...]] = []
    row: list[Node] = []
    while True:
        text = p.text()
        if text.startswith("end:"):
            p.at += 1
            break
        if text == "&":
            p.at += 1
        elif text in ("\\", "cr"):
            p.at += 1
            if row:
                rows.append(tuple(row))
            row = []
        elif text == "hline":
            p.at += 1
        else:
            row.append(p.item())
            if p.text() not in ("&", "\\", "cr") and not p.text().startswith("end:"):
                raise ParseError("matrix")
    p.bar_stop = saved
    if row:
        rows.append(tuple(row))
    if listing:
        if any(len(r) != 1 for r in rows) or not rows:
            raise ParseError("lines")
        return n.Listing(tuple(r[0] for r in rows)) if len(rows) > 1 else rows[0][0]
    if not rows or len({len(r) for r in rows}) != 1:
        raise ParseError("matrix rows")
    matrix = n.Matrix(tuple(rows))
    return n.Func("det", (matrix,)) if kind == "vmatrix" else matrix


def fold(p: Parser, kind: str) -> Node:
    """`\\sum_{k=a}^{b} f`, `\\prod`, `\\int_a^b f dx`, `\\lim_{x \\to a} f`."""
    low: Node | None = None
    high: Node = n.Const("oo")
    variable = ""
    while p.text() in ("_", "^"):
        if p.take().text == "^":
            high = p.argument(whole_number=True)
        elif kind == "lim":
            variable, low = approach(p)
        else:
            low = p.argument(whole_number=True)
    if kind in ("sum", "prod"):
        match low:
            case n.Relation((n.Sym(variable), start), ("=",)):
                low = start
            case n.Relation((n.Const("i"), start), ("=",)):
                variable, low = "i", start
            case _:
                raise ParseError("bounds")
    if low is None:
        raise ParseError("bounds")
    body = p.product() if kind != "int" else p.sum()
    if kind == "int":
        body, variable = integrand(body)
    if kind in ("sum", "prod") and variable == "i":
        body = replace_imaginary(body)
    return n.Fold(kind, variable, low, high, body)


def approach(p: Parser) -> tuple[str, Node]:
    p.expect("{")
    variable = p.take().text
    p.expect("to", "rightarrow", "->")
    target = p.sum()
    if p.text() in ("^", "+", "-"):
        raise ParseError("one-sided limit")
    p.expect("}")
    return variable, target


def integrand(body: Node) -> tuple[Node, str]:
    """The integrand and its variable, from a product that ends in `d x`."""
    match body:
        case n.Mul((*rest, n.Sym("d"), n.Sym(variable))):
            factors = tuple(rest)
            return (n.Mul(factors) if len(factors) > 1 else factors[0] if factors else n.ONE), variable
    raise ParseError("integral")


def replace_imaginary(node: Node) -> Node:
    """`i` as an index instead of the imaginary unit."""
    match node:
        case n.Const("i"):
            return n.Sym("i")
        case n.Add(terms):
            return n.Add(tuple(map(replace_imaginary, terms)))
        case n.Mul(factors):
            return n.Mul(tuple(map(replace_imaginary, factors)))
        case n.Pow(base, exponent):
            return n.Pow(replace_imaginary(base), replace_imaginary(exponent))
        case n.Func(called, args):
            return n.Func(called, tuple(map(replace_imaginary, args)))
    return node
