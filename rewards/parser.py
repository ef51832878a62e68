"""Tokens to the expression tree: recursive descent, depth and size bounded, nothing evaluated.

Grammar, loosest first: list (, ; and or) > relation (= < in ...) > ratio (:) > set operation > sum >
product (explicit, implicit, mixed number) > power and postfix > atom (see atoms.py).
"""

from __future__ import annotations

from contextlib import suppress
from fractions import Fraction

from rewards import nodes as n
from rewards.lexer import Token, tokenize
from rewards.limits import NESTING, NODES, LimitError, ParseError
from rewards.nodes import Node
from rewards.units import COMPOUND, NUMBER_WORDS, SCALES, compound
from rewards.wordsets import word_set

RELATIONS = {
    "=": "=", "==": "=", "!=": "!=", "<>": "!=", "<": "<", ">": ">", "<=": "<=", ">=": ">=", "=<": "<=",
    "ne": "!=", "neq": "!=", "lt": "<", "gt": ">", "le": "<=", "leq": "<=", "leqslant": "<=", "leqq": "<=",
    "ge": ">=", "geq": ">=", "geqslant": ">=", "geqq": ">=", "approx": "~", "simeq": "~", "doteq": "~",
    "thickapprox": "~", "in": "in", "equiv": "=", "coloneqq": "=",
}  # fmt: skip
_SET_OPS = {
    "cup": "union",
    "bigcup": "union",
    "cap": "intersection",
    "setminus": "difference",
    "backslash": "difference",
}
_TIMES = frozenset({"*", "cdot", "times", "ast", "bullet", "star"})
_OVER = frozenset({"/", "div", "slash"})
_UNREADABLE = word_set(
    "to rightarrow mapsto implies Rightarrow Leftrightarrow iff therefore because not notin subset subseteq "
    "forall exists mid parallel perp sim cong land lor wedge vee oplus otimes circ prime pmod bmod mod over "
    "atop if & longrightarrow Longrightarrow leftarrow uparrow downarrow stackrel overset underset underbrace"
)
_FILLERS = word_set("approximately about approx around exactly roughly only just")
_PERCENT_WORDS = frozenset({"percent", "percentage", "pct", "percents"})
_ENDS = word_set(
    "pm mp minus } rangle rfloor rceil rvert rVert rbrace rbrack colon \\ | % choose mid newline cr"
)
_CONSEQUENCES = frozenset({"implies", "Rightarrow", "Longrightarrow", "therefore"})


def literal(text: str) -> n.Num:
    """The exact value of a number token: digits, decimals, "r" and repeating digits, exponent."""
    exponent = 0
    if "e" in text:
        text, power = text.split("e")
        exponent = int(power)
        if abs(exponent) > 400:
            raise LimitError("exponent")
    repeat = ""
    if "r" in text:
        text, repeat = text.split("r")
    whole, _, part = text.partition(".")
    value = Fraction(int((whole + part) or "0"), 10 ** len(part))
    if repeat:
        value += Fraction(int(repeat), (10 ** len(repeat) - 1) * 10 ** len(part))
    places = len(part) if part and not repeat and not exponent else None
    return n.Num(value * Fraction(10) ** exponent, places)


class Parser:
    def __init__(self, tokens: list[Token]) -> None:
        if len(tokens) > 4 * NODES:
            raise LimitError("tokens")
        self.tokens = tokens
        self.at = 0
        self.depth = 0
        self.bar_stop = False  # inside |...| or a set, where a bar ends the operand
        self.words: list[str] = []  # unit words of the item being read

    # -- cursor ---------------------------------------------------------------------------------------
    def peek(self, ahead: int = 0) -> Token | None:
        index = self.at + ahead
        return self.tokens[index] if index < len(self.tokens) else None

    def text(self, ahead: int = 0) -> str:
        """Text of an operator or command token, "" for other kinds and at the end."""
        token = self.peek(ahead)
        return token.text if token is not None and token.kind in ("op", "cmd") else ""

    def take(self) -> Token:
        token = self.peek()
        if token is None:
            raise ParseError("end")
        self.at += 1
        return token

    def accept(self, *texts: str) -> bool:
        if self.text() in texts and self.text():
            self.at += 1
            return True
        return False

    def expect(self, *texts: str) -> str:
        token = self.take()
        if token.kind not in ("op", "cmd") or token.text not in texts:
            raise ParseError(f"expected {texts[0]}")
        return token.text

    def deeper(self) -> None:
        self.depth += 1
        if self.depth > NESTING:
            raise LimitError("nesting")

    # -- lists and relations ---------------------------------------------------------------------------
    def joiner(self) -> str:
        """The separator at the cursor ("," "and" "or"), which is then consumed, or ""."""
        found = ""
        while True:
            token = self.peek()
            if token is None:
                return found
            if token.kind == "op" and token.text in (",", ";"):
                found = found or ","
            elif token.kind == "word" and token.text in ("and", "or"):
                found = token.text if found in ("", ",") else found
            else:
                return found
            self.at += 1

    def listing(self, closers: tuple[str, ...] = ()) -> Node:
        """Items up to the end or a closing token, which is left for the caller."""
        items: list[Node] = []
        joiners: list[str] = []
        self.deeper()
        saved, self.words = self.words, []
        while True:
            if self.peek() is None or (closers and self.text() in closers):
                break
            items.append(self.item())
            joiner = self.joiner()
            if not joiner:
                break
            joiners.append(joiner)
        self.words = saved
        self.depth -= 1
        if not items:
            raise ParseError("empty")
        if len(items) == 2 and joiners in (["and"], [","]) and all(isinstance(item, n.Measure) for item in items):
            with suppress(ParseError):  # 2 hours and 30 minutes
                return measured_sum(*(item for item in items if isinstance(item, n.Measure)))
        if len(items) == 1:
            return items[0]
        return n.Listing(tuple(items), "or" if "or" in joiners else "and" if "and" in joiners else ",")

    def item(self) -> Node:
        self.words = []
        while self.text() in ("=", "approx", "therefore", "implies", "Rightarrow", "simeq") and self.text():
            self.at += 1
        while (token := self.peek()) is not None and token.kind == "word" and token.text.lower() in _FILLERS:
            self.at += 1
        node = self.relation()
        if self.words:
            node = n.Measure(node, tuple(self.words))
        while isinstance(node, n.Measure) and (token := self.peek()) is not None and token.kind == "num":
            self.words = []
            node = measured_sum(node, n.Measure(self.product(), tuple(self.words)))
        self.words = []
        return node

    def relation(self) -> Node:
        members = [self.ratio()]
        ops: list[str] = []
        while self.text() in RELATIONS:
            # x = 5 \text{ cm}: units belong to the last member
            if len(members) == 1 and isinstance(members[0], n.Text) is False:
                self.words = []
            ops.append(RELATIONS[self.take().text])
            members.append(self.ratio())
        if ops and self.accept("pmod", "bmod", "mod"):
            ops.append("mod")
            members.append(self.argument(whole_number=True))
        return n.Relation(tuple(members), tuple(ops)) if ops else members[0]

    def ratio(self) -> Node:
        items = [self.set_operation()]
        while self.text() in (":", "colon") and not (self.bar_stop and len(items) == 1 and self.in_braces):
            self.at += 1
            items.append(self.set_operation())
        return n.Ratio(tuple(items)) if len(items) > 1 else items[0]

    in_braces = False

    def set_operation(self) -> Node:
        node = self.sum()
        while self.text() in _SET_OPS:
            op = _SET_OPS[self.take().text]
            right = self.sum()
            if isinstance(node, n.SetOp) and node.op == op and op != "difference":
                node = n.SetOp(op, (*node.items, right))
            else:
                node = n.SetOp(op, (node, right))
        return node

    # -- arithmetic ------------------------------------------------------------------------------------
    def sum(self) -> Node:
        self.deeper()
        terms: list[Node] = []
        sign = self.sign()
        terms.append(self.signed(sign, self.product()))
        while self.text() in ("+", "-", "pm", "mp", "minus"):
            sign = self.sign()
            terms.append(self.signed(sign, self.product()))
        self.depth -= 1
        if len(terms) == 1:
            return terms[0]
        if any(isinstance(term, n.Text) for term in terms):
            raise ParseError("text in a sum")
        return n.Add(tuple(terms))

    def sign(self) -> str:
        sign = "+"
        while self.text() in ("+", "-", "pm", "mp", "minus"):
            op = self.take().text
            if op in ("pm", "mp"):
                sign = op
                if op == "pm" and sign == "-":
                    sign = "mp"
            elif op in ("-", "minus"):
                sign = {"+": "-", "-": "+", "pm": "mp", "mp": "pm"}[sign]
        return sign

    @staticmethod
    def signed(sign: str, node: Node) -> Node:
        if sign == "+":
            return node
        if sign == "-":
            return n.negate(node)
        return n.PlusMinus(node, flipped=sign == "mp")

    def product(self) -> Node:
        factors: list[Node] = [self.factor()]
        while True:
            text = self.text()
            if text in _TIMES:
                self.at += 1
                factors.append(self.signed_factor())
            elif text in _OVER and not self.words:
                self.at += 1
                factors.append(n.Pow(self.signed_factor(), n.MINUS_ONE))
            elif self.is_times_letter():
                self.at += 1
                factors.append(self.factor())
            elif self.scale_word():
                factors.append(n.number(SCALES[self.take().text.lower()]))
            elif self.unit_words():
                continue
            elif self.words and (token := self.peek()) is not None and token.kind == "num":
                break  # 6 feet 2 inches
            elif self.starts_factor():
                self.implicit(factors)
            else:
                break
        if len(factors) > 1 and any(isinstance(f, n.Text) for f in factors):
            raise ParseError("text in a product")
        return factors[0] if len(factors) == 1 else n.Mul(tuple(factors))

    def signed_factor(self) -> Node:
        sign = self.sign()
        return self.signed(sign, self.factor())

    def implicit(self, factors: list[Node]) -> None:
        """Multiplication without a sign, or the fraction of a mixed number."""
        if self.words:
            raise ParseError("number after a unit")
        previous = self.tokens[self.at - 1]
        token = self.peek()
        assert token is not None
        whole = factors[-1]
        after_number = previous.kind == "num"
        if isinstance(whole, n.Num) and after_number and token.kind == "num":
            if self.text(1) not in _OVER or (self.peek(2) or token).kind != "num" or whole.places is not None:
                raise ParseError("two numbers side by side")
            if len(factors) > 1 and self.tokens[self.at - 2].text in _OVER:
                raise ParseError("mixed number after a division")
            top = literal(self.take().text).value
            self.at += 1
            bottom = literal(self.take().text).value
            factors[-1] = self.mixed(whole, top, bottom)
        elif isinstance(whole, n.Num) and after_number and token.text == "frac" and token.kind == "cmd":
            fraction = self.factor()
            match fraction:
                case n.Mul((n.Num(top, None), n.Pow(n.Num(bottom, None), n.MINUS_ONE))) if (
                    top.denominator == bottom.denominator == 1 and whole.places is None
                ):
                    factors[-1] = self.mixed(whole, top, bottom)
                case _:
                    factors.append(fraction)
        else:
            factors.append(self.factor())

    @staticmethod
    def mixed(whole: n.Num, top: Fraction, bottom: Fraction) -> Node:
        if not 0 <= top < bottom or whole.value.denominator != 1:
            raise ParseError("not a mixed number")
        return n.Num(whole.value + top / bottom)

    def is_times_letter(self) -> bool:
        """ "1.5 x 10^3" """
        token, before = self.peek(), self.tokens[self.at - 1]
        following = self.peek(1)
        return (
            token is not None
            and token.kind == "name"
            and token.text in ("x", "X")
            and before.kind == "num"
            and following is not None
            and following.kind == "num"
            and (following.text == "10" or token.gap)
        )

    def starts_factor(self) -> bool:
        token = self.peek()
        if token is None:
            return False
        if token.kind in ("num", "name"):
            return True
        if token.kind == "word":
            return False
        if token.kind == "op":
            return token.text in ("(", "[", "{") or (token.text == "|" and not self.bar_stop)
        return not (
            token.text in RELATIONS
            or token.text in _SET_OPS
            or token.text in _TIMES
            or token.text in _OVER
            or token.text in _UNREADABLE
            or token.text.startswith("end:")
            or token.text in _ENDS
        )

    def unit_words(self) -> bool:
        """Consume one unit word after a value, with its power; False if there is none here."""
        token = self.peek()
        if token is None:
            return False
        if token.kind == "cmd" and token.text.startswith("currency:"):
            self.at += 1
            self.words.append(token.text[9:])
            return True
        if token.kind == "op" and token.text == "/" and self.words:
            following = self.peek(1)
            if following is not None and following.kind == "word":
                self.at += 1
                self.words.append("per")
                return True
            if following is not None and following.kind == "name" and following.text in ("h", "s"):
                self.at += 2
                self.words += ["per", following.text]
                return True
            return False
        if token.kind != "word" or token.text in ("and", "or"):
            if token.kind == "op" and token.text == "." and self.words:
                self.at += 1
                return True
            return False
        self.at += 1
        self.words.append(token.text)
        if self.text() in ("^", "**"):
            self.at += 1
            power = self.argument()
            if not isinstance(power, n.Num) or power.value not in (2, 3):
                raise ParseError("power of a unit")
            self.words.append(f"^{power.value}")
        return True

    # -- powers and postfix operators -------------------------------------------------------------------
    def factor(self) -> Node:
        from rewards.atoms import atom

        self.deeper()
        start = self.peek()
        node = atom(self)
        node = self.postfix(node, start)
        if self.text() in ("^", "**"):
            self.at += 1
            node = self.raised(node)
            node = self.postfix(node, None)
        self.depth -= 1
        return node

    def postfix(self, node: Node, start: Token | None) -> Node:
        while True:
            text = self.text()
            if text == "!":
                self.at += 1
                node = n.Func("factorial2" if self.accept("!") else "factorial", (node,))
            elif text == "%" or self.percent_word():
                self.at += 1
                node = n.Func("percent", (node,))
            elif text == "degree":
                self.at += 1
                node = n.Func("deg", (node,))
            elif text == "_" and start is not None and start.kind == "num":
                self.at += 1
                node = self.based(start)
            else:
                return node

    def scale_word(self) -> bool:
        """The "million" of 3 million."""
        token, before = self.peek(), self.tokens[self.at - 1]
        return (
            token is not None
            and token.kind == "word"
            and before.kind == "num"
            and token.text.lower() in SCALES
        )

    def percent_word(self) -> bool:
        token = self.peek()
        return token is not None and token.kind == "word" and token.text.lower() in _PERCENT_WORDS

    def based(self, digits: Token) -> Node:
        token = self.peek()
        base = self.argument()
        value = NUMBER_WORDS.get(base.words, 0) if isinstance(base, n.Text) else 0
        if isinstance(base, n.Num) and base.value.denominator == 1:
            value = int(base.value)
        if not 2 <= value <= 36 or token is None or not digits.text.isdigit():
            raise ParseError("base")
        return n.Based(digits.text.lstrip("0") or "0", value)

    def raised(self, base: Node) -> Node:
        """The power of `base`; degrees, transposes and primes are written as powers too."""
        if self.text() == "circ" or (self.text() == "{" and self.text(1) == "circ" and self.text(2) == "}"):
            self.at += 1 if self.text() == "circ" else 3
            scale = self.peek()
            if (
                scale is not None
                and scale.kind == "name"
                and scale.text in ("C", "F")
                and self.peek(1) is None
            ):
                self.at += 1  # a temperature
                self.words.append({"C": "celsius", "F": "fahrenheit"}[scale.text])
                return base
            return n.Func("deg", (base,))
        if self.text() in ("prime", "'") or (self.text() == "{" and self.text(1) == "prime"):
            raise ParseError("prime")
        if self.text() in ("top", "intercal") or (
            isinstance(base, n.Matrix) and (self.peek() or Token("", "")).text == "T"
        ):
            self.at += 1
            return n.Func("transpose", (base,))
        exponent = self.argument(whole_number=True)
        if self.text() in ("^", "**"):
            self.at += 1
            exponent = n.Pow(exponent, self.argument(whole_number=True))
        return n.Pow(base, exponent)

    def argument(self, whole_number: bool = False) -> Node:
        """A braced group, or one token; of a number its first digit unless `whole_number`."""
        token = self.peek()
        if token is None:
            raise ParseError("argument")
        if token.kind == "op" and token.text == "{":
            return self.group()
        if token.kind == "op" and token.text in ("-", "+"):
            self.at += 1
            inner = self.argument(whole_number)
            return n.negate(inner) if token.text == "-" else inner
        if token.kind == "num" and not whole_number and token.text.isdigit() and len(token.text) > 1:
            self.tokens[self.at] = Token("num", token.text[1:])
            return literal(token.text[0])
        from rewards.atoms import atom

        self.deeper()
        node = atom(self)
        self.depth -= 1
        return node

    def group(self) -> Node:
        """`{...}`: its content, which may be a list."""
        self.expect("{")
        saved_stop, self.bar_stop = self.bar_stop, False
        saved_braces, self.in_braces = self.in_braces, False
        words = self.words
        node = self.listing(("}",))
        self.words = words
        if self.accept("choose"):
            node = n.Func("binom", (node, self.listing(("}",))))
        self.expect("}")
        self.bar_stop, self.in_braces = saved_stop, saved_braces
        return node


def measured_sum(large: n.Measure, small: n.Measure) -> n.Measure:
    """6 feet 2 inches as 74 inches. Raises ParseError where the two are not said together."""
    match small.value:
        case n.Num(value, _):
            factor = compound(tuple(word for word in large.words if word != COMPOUND), small.words)
            if factor is not None and 0 <= value < factor:
                return n.Measure(n.Add((n.Mul((n.number(factor), large.value)), small.value)), (*small.words, COMPOUND))
    raise ParseError("number after a unit")


def parse(text: str, thousands: bool = True) -> Node:
    """The tree of an answer. Raises ParseError (not mathematics) or LimitError (too large)."""
    tokens = tokenize(text, thousands)
    while tokens and tokens[-1].kind == "op" and tokens[-1].text in (".", ",", ";", ":"):
        tokens.pop()
    while tokens and tokens[-1].kind == "cmd" and tokens[-1].text == "\\":
        tokens.pop()
    for index in range(len(tokens) - 1, -1, -1):
        if tokens[index].kind == "cmd" and tokens[index].text in _CONSEQUENCES:
            tokens = tokens[index + 1 :]  # x + 1 = 4 => x = 3 answers x = 3
            break
    if not tokens:
        raise ParseError("empty")
    parser = Parser(tokens)
    node = parser.listing()
    if parser.peek() is not None:
        raise ParseError("unread text")
    if n.size(node) > NODES:
        raise LimitError("nodes")
    return node
