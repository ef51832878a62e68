"""LaTeX or plain text to tokens: one forward pass, each character looked at a bounded number of times."""

from __future__ import annotations

import re
from dataclasses import dataclass

from rewards.limits import ANSWER_CHARS, DIGITS, NESTING, LimitError, ParseError
from rewards.units import BARE_UNITS, NUMBER_WORDS, part_of
from rewards.wordsets import word_set


@dataclass(frozen=True, slots=True)
class Token:
    """kind: num, cmd (LaTeX name without backslash), name (letter), word (text), op. `gap`: space before."""

    kind: str
    text: str
    gap: bool = False


FUNCTIONS = word_set(
    "sin cos tan cot sec csc arcsin arccos arctan arccot arcsec arccsc sinh cosh tanh coth sech csch asin "
    "acos atan arcsinh arccosh arctanh asinh acosh atanh log ln lg exp sqrt cbrt abs floor ceil max min gcd "
    "lcm det deg binom factorial Re Im arg sgn sign tg ctg arctg"
)
_PLAIN_CONSTANTS = {
    "pi": "pi",
    "infinity": "infty",
    "infty": "infty",
    "inf": "infty",
    "oo": "infty",
    "tau": "tau",
}
_GREEK = word_set(
    "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi rho sigma tau phi chi psi omega"
)
_SHORT_WORDS = word_set(
    "odd the yes no all any not for red may jan feb mar apr jun jul aug sep oct nov dec mon tue wed thu fri "
    "sat sun are is of to if it per pct none"
)
_JOINERS = frozenset({"and", "or"})
_ALIASES = {
    "dfrac": "frac", "tfrac": "frac", "cfrac": "frac", "dbinom": "binom", "tbinom": "binom", "dots": "ldots",
    "cdots": "ldots", "dotsc": "ldots", "dotsb": "ldots",
}  # fmt: skip
_DROPPED = word_set(
    "left right big Big bigg Bigg bigl bigr Bigl Bigr biggl biggr Biggl Biggr middle displaystyle textstyle "
    "scriptstyle quad qquad limits nolimits mathstrut strut hfill hfil nobreak allowbreak bf rm it sf tt cal "
    "normalfont bfseries itshape mathord mathrel mathbin mathopen mathclose large Large small tiny "
    "normalsize protect relax noindent thinspace enspace thickspace medspace negthinspace nonumber notag "
    "boldmath "
    "par unboldmath centering"
)
_UNWRAPPED = word_set(
    "mathbf mathit mathsf mathtt boldsymbol bm pmb mathcal mathscr mathfrak mathnormal overline underline "
    "boxed fbox framebox ensuremath vec hat bar tilde widehat overrightarrow widetilde dot ddot mathop "
    "mathinner "
    "cancel bcancel"
)
_TEXTUAL = word_set(
    "text textbf textit textrm textnormal mbox mathrm operatorname textsf texttt hbox emph textup textsc "
    "operatorname*"
)
_SKIPPED_WITH_ARGUMENT = word_set("hspace vspace label tag phantom vphantom hphantom color hspace*")
_BACKSLASH_SYMBOL = {
    "%": ("op", "%"), "$": ("cmd", "currency:dollar"), "{": ("cmd", "{"), "}": ("cmd", "}"),
    "|": ("cmd", "|"),
    "&": ("op", "&amp"),
    "\\": ("cmd", "\\"), "_": ("op", "_"), "#": ("op", "#"),
}  # fmt: skip

_GROUP_SEPARATORS = r"(?:,\s?\\!\s?|\\,|\\ |\s?\{\s?,\s?\}\s?|\\;|\\:|~)"
_LATEX_GROUPS = re.compile(rf"\d{{1,3}}(?:{_GROUP_SEPARATORS}\d{{3}})+(?!\d)")
_COMMA_GROUPS = re.compile(r"[1-9]\d{0,2}(?:,\d{3})+(?!,?\d)")
_SPACE_GROUPS = re.compile(r"[1-9]\d{0,2}(?: \d{3})+(?![\d/]| \d)")
_APOSTROPHE_GROUPS = re.compile(r"[1-9]\d{0,2}(?:'\d{3})+(?!'?\d)")
_DIGITS = re.compile(r"\d+")
_FRACTION_PART = re.compile(r"\.\d+")
_EXPONENT = re.compile(r"[eE][+-]?\d{1,4}(?![\w.])")
_OVERLINE = re.compile(r"\s*\\(?:overline|bar|dot)\s*(?:\{(\d+)\}|(\d))")
_PARENTHESISED = re.compile(r"\((\d+)\)")
_COMMAND = re.compile(r"[A-Za-z]+\*?")
_LETTERS = re.compile(r"[A-Za-z]+")
_COMPOUND = re.compile(r"[A-Za-z]{3,8}-[A-Za-z]{3,12}(?![A-Za-z])")
_WORD = re.compile(r"[^\W\d_]+(?:[-'.][^\W\d_]+)*\.?")
_DOTS = re.compile(r"\.{3,}|\\ldots|\\dots|\\cdots|\\dotsc|\\dotsb")
_ENVIRONMENT = re.compile(r"\s*\{([a-zA-Z]+\*?)\}")
_COLUMNS = re.compile(r"\s*\{[lcr|@{}\s]*\}")
_TWO_CHARACTER = {"**", "<=", ">=", "!=", "==", "=>", "=<", "->", "<>", "||"}


class Lexer:
    def __init__(self, text: str, thousands: bool = True, level: int = 0) -> None:
        if level > 4:
            raise LimitError("nesting")
        if len(text) > ANSWER_CHARS:
            raise LimitError("characters")
        self.text = text
        self.at = 0
        self.gap = False
        self.depth = 0  # of ( [ \{ : a plain comma between digits separates members there
        self.braces: list[str] = []
        self.thousands = thousands
        self.level = level  # of text commands inside text commands
        self.tokens: list[Token] = []

    def emit(self, kind: str, text: str) -> None:
        self.tokens.append(Token(kind, text, self.gap))
        self.gap = False

    def run(self) -> list[Token]:
        text = self.text
        while self.at < len(text):
            char = text[self.at]
            if char.isspace() or char == "~":
                self.at += 1
                self.gap = True
            elif char.isdigit() or (char == "." and text[self.at + 1 : self.at + 2].isdigit()):
                self.number()
            elif char == "\\":
                self.command()
            elif char.isalpha() and char.isascii():
                self.letters()
            elif char.isalpha():
                self.word()
            else:
                self.symbol(char)
        if self.braces:
            raise ParseError("unbalanced braces")
        return self.tokens

    def symbol(self, char: str) -> None:
        """One punctuation character or a two-character operator."""
        if char == "{":
            self.braces.append("{")
            if len(self.braces) > NESTING:
                raise LimitError("nesting")
            self.emit("op", "{")
            self.at += 1
            return
        if char == "}":
            if not self.braces:
                raise ParseError("unbalanced braces")
            kind = self.braces.pop()
            self.at += 1
            self.emit("op", "}") if kind == "{" else None
            return
        pair = self.text[self.at : self.at + 2]
        if pair in _TWO_CHARACTER:
            self.emit("op", pair)
            self.at += 2
            return
        dots = _DOTS.match(self.text, self.at)
        if dots:
            self.emit("cmd", "ldots")
            self.at = dots.end()
            return
        if char in "([":
            self.depth += 1
        elif char in ")]":
            self.depth = max(0, self.depth - 1)
        if char == "$":
            self.gap = True
            following = self.text[self.at + 1 : self.at + 2]
            self.at += 1
            if following.isdigit() and self.text.count("$") % 2:  # a currency sign, not a math delimiter
                self.emit("cmd", "currency:dollar")
            return
        if char in "€£¥":
            self.emit("cmd", "currency:" + {"€": "euro", "£": "sterling", "¥": "yen"}[char])
        elif char in '`"':
            self.gap = True
        else:
            self.emit("op", char)
        self.at += 1

    def number(self) -> None:
        """A number with its thousands groups, decimals, repeating digits or exponent, as one token."""
        text, start = self.text, self.at
        groups = _LATEX_GROUPS.match(text, start)
        if groups is None and self.depth == 0 and self.thousands and not self.after_subscript():
            groups = _COMMA_GROUPS.match(text, start) or _SPACE_GROUPS.match(text, start)
            groups = groups or _APOSTROPHE_GROUPS.match(text, start)
        if groups:
            whole = "".join(_DIGITS.findall(groups.group()))
            self.at = groups.end()
        else:
            digits = _DIGITS.match(text, start)
            whole = digits.group() if digits else ""
            self.at = digits.end() if digits else start
        if len(whole) > DIGITS:
            raise LimitError("digits")
        part = _FRACTION_PART.match(text, self.at)
        if part is None and text[self.at : self.at + 1] == "." and _OVERLINE.match(text, self.at + 1):
            part_text, self.at = ".", self.at + 1
        else:
            part_text = part.group() if part else ""
            self.at = part.end() if part else self.at
        if len(part_text) > DIGITS:
            raise LimitError("digits")
        literal = whole + part_text
        if part_text:
            literal += self.repeating(part_text)
        exponent = _EXPONENT.match(text, self.at)
        if exponent and "r" not in literal:
            literal += exponent.group().lower()
            self.at = exponent.end()
        self.emit("num", literal)

    def after_subscript(self) -> bool:
        return bool(self.tokens) and self.tokens[-1].text in ("_", "^")

    def repeating(self, part: str) -> str:
        """ "r" and the repeating digits after a decimal point, or nothing."""
        bar = _OVERLINE.match(self.text, self.at)
        if bar:
            self.at = bar.end()
            return "r" + (bar.group(1) or bar.group(2))
        inner = _PARENTHESISED.match(self.text, self.at)
        if inner and not self.text[inner.end() : inner.end() + 1].isalnum():
            self.at = inner.end()
            return "r" + inner.group(1)
        dots = _DOTS.match(self.text, self.at)
        digits = part[1:]
        if dots:
            for length in (1, 2, 3, 6):
                block = digits[-length:]
                copies = 3 if length == 1 else 2
                if len(digits) >= copies * length and digits.endswith(block * copies):
                    self.at = dots.end()
                    return "r" + block
        return ""

    def command(self) -> None:
        """A backslash command: kept, unwrapped, dropped, or turned into text words."""
        text = self.text
        following = text[self.at + 1 : self.at + 2]
        match = _COMMAND.match(text, self.at + 1)
        if match is None:
            self.at += 2
            if following in _BACKSLASH_SYMBOL:
                kind, name = _BACKSLASH_SYMBOL[following]
                if name == "{":
                    self.depth += 1
                elif name == "}":
                    self.depth = max(0, self.depth - 1)
                self.emit(kind, name)
            else:  # \, \! \; \: \( \) \[ \] and "\ " are spacing or delimiters
                self.gap = True
            return
        name = match.group()
        self.at = match.end()
        if name.endswith("*") and name not in ("operatorname*", "hspace*"):
            name = name[:-1]
            self.at -= 1
        self.named(name)

    def named(self, name: str) -> None:
        if name in _DROPPED:
            self.gap = self.gap or name in ("quad", "qquad")
            if name in ("left", "right", "middle") and self.text[self.at : self.at + 1] == ".":
                self.at += 1
        elif name in _TEXTUAL:
            self.textual(name)
        elif name in _UNWRAPPED:
            self.unwrap(name)
        elif name in _SKIPPED_WITH_ARGUMENT:
            self.skip_argument()
        elif name in ("begin", "end"):
            self.environment(name)
        else:
            name = _ALIASES.get(name, name)
            if name in ("langle", "lbrack", "lfloor", "lceil", "lbrace"):
                self.depth += 1
            elif name in ("rangle", "rbrack", "rfloor", "rceil", "rbrace"):
                self.depth = max(0, self.depth - 1)
            self.emit("cmd", name)

    def skip_space(self) -> None:
        while self.text[self.at : self.at + 1].isspace():
            self.at += 1

    def unwrap(self, name: str) -> None:
        """Drop a style command and the braces of its argument; keep what is inside."""
        self.skip_space()
        if self.text[self.at : self.at + 1] == "{":
            self.braces.append("{")
            if len(self.braces) > NESTING:
                raise LimitError("nesting")
            self.at += 1
            self.emit("op", "{")

    def skip_argument(self) -> None:
        self.skip_space()
        if self.text[self.at : self.at + 1] == "{":
            self.at = self.closing(self.at) + 1
        else:
            self.at += 1

    def closing(self, start: int) -> int:
        """Index of the brace that closes the one at `start`."""
        level = 0
        for index in range(start, len(self.text)):
            char = self.text[index]
            if char == "{":
                level += 1
            elif char == "}":
                level -= 1
                if level == 0:
                    return index
        raise ParseError("unbalanced braces")

    def textual(self, name: str) -> None:
        """Tokens of a text argument: words as words, numbers and punctuation as usual."""
        self.skip_space()
        if self.text[self.at : self.at + 1] != "{":
            return
        end = self.closing(self.at)
        content = self.text[self.at + 1 : end]
        stripped = content.strip(" ~")
        self.at = end + 1
        if (
            stripped[:1] == "("
            and stripped[-1:] == ")"
            and stripped[1:-1].replace(" ", "").isalpha()
            and len(stripped) > 3
        ):
            content = stripped[1:-1]  # 5 \\text{ (metres)}
        inner = Lexer(content.replace("~", " "), self.thousands, self.level + 1)
        inner.depth = self.depth
        follows_value = bool(self.tokens) and (
            self.tokens[-1].kind == "num" or self.tokens[-1].text in ("}", ")")
        )
        is_unit = follows_value and stripped in ("min", "sec", "deg")
        if (
            name in ("operatorname", "operatorname*", "mathrm")
            and not is_unit
            and (stripped in FUNCTIONS or stripped in ("e", "i", "d"))
        ):
            self.emit("cmd", stripped) if stripped in FUNCTIONS else self.emit("name", stripped)
            return
        tokens = inner.text_run()
        if tokens:
            first = tokens[0]
            tokens[0] = Token(first.kind, first.text, first.gap or self.gap)
            self.gap = False
        self.tokens.extend(tokens)

    def text_run(self) -> list[Token]:
        """Like run, but letters form words."""
        text = self.text
        while self.at < len(text):
            char = text[self.at]
            if char.isspace():
                self.at += 1
                self.gap = True
            elif char.isdigit():
                self.number()
            elif char.isalpha():
                self.word()
            elif char == "\\":
                self.command()
            else:
                self.symbol(char)
        if self.braces:
            raise ParseError("unbalanced braces")
        return self.tokens

    def word(self) -> None:
        match = _WORD.match(self.text, self.at)
        if match is None:
            raise ParseError("character")
        raw = match.group()
        self.at = match.end()
        word = raw if raw.lower() in ("a.m.", "p.m.") else raw.rstrip(".")
        self.emit("word", word.lower() if word.lower() in _JOINERS else word)

    def environment(self, name: str) -> None:
        match = _ENVIRONMENT.match(self.text, self.at)
        if match is None:
            raise ParseError("environment")
        self.at = match.end()
        kind = match.group(1).rstrip("*")
        self.depth += 1 if name == "begin" else -1
        if name == "begin" and kind in ("array", "tabular"):
            columns = _COLUMNS.match(self.text, self.at)
            self.at = columns.end() if columns else self.at
        self.emit("cmd", f"{name}:{kind}")

    def letters(self) -> None:
        """A run of letters outside a text command: a function, a word, a unit, or single variables."""
        match = _LETTERS.match(self.text, self.at)
        assert match is not None
        run = match.group()
        end = match.end()
        if run.lower() in ("a", "p") and re.match(r"\.\s?m\b\.?", self.text[end : end + 4]):
            self.emit("word", run.lower() + ".m.")
            self.at = end + re.match(r"\.\s?m\b\.?", self.text[end : end + 4]).end()  # type: ignore[union-attr]
            return
        compound = _COMPOUND.match(self.text, self.at)
        if compound and all(part in NUMBER_WORDS or part_of(part) for part in compound.group().lower().split("-")):
            self.at = compound.end()
            self.emit("word", compound.group())
            return
        self.at = end
        low = run.lower()
        if low in _JOINERS:
            self.emit("word", low)
        elif run in ("US", "HK", "NT") and self.text[end : end + 3].lstrip().lstrip("\\").startswith("$"):
            self.gap = True
        elif run in FUNCTIONS:
            self.emit("cmd", run)
        elif low in _PLAIN_CONSTANTS:
            self.emit("cmd", _PLAIN_CONSTANTS[low])
        elif low in _GREEK:
            self.emit("cmd", low)
        elif low == "union":
            self.emit("cmd", "cup")
        elif low == "in" and self.tokens and self.text[self.at :].lstrip()[:1] in ("[", "(", "{"):
            self.emit("cmd", "in")
        elif low == "in" and self.tokens and self.tokens[-1].kind == "num":
            self.emit("word", "in")
        elif len(run) == 1:
            self.emit("name", run)
        elif (low in BARE_UNITS and self.tokens) or self.is_word(run):
            self.emit("word", run)
        else:
            self.split(run)

    @staticmethod
    def is_word(run: str) -> bool:
        if run.lower() in NUMBER_WORDS or run.lower() in _SHORT_WORDS:
            return True
        if len(run) >= 4:
            return not any(
                run.startswith(f) and len(run) - len(f) <= 1 for f in ("sin", "cos", "tan", "log", "sqrt")
            )
        return (len(run) == 3 and not run.islower()) or (
            len(run) == 2 and run[0].isupper() and run[1].islower()
        )

    def split(self, run: str) -> None:
        for function in ("sin", "cos", "tan", "cot", "sec", "csc", "log", "ln", "sqrt"):
            if run.startswith(function) and len(run) == len(function) + 1:
                self.emit("cmd", function)
                self.emit("name", run[-1])
                return
        if run.endswith("pi") and len(run) == 3:
            self.emit("name", run[0])
            self.emit("cmd", "pi")
            return
        for letter in run:
            self.emit("name", letter)


def tokenize(text: str, thousands: bool = True) -> list[Token]:
    """Tokens of an answer. Raises LimitError or ParseError."""
    return Lexer(text, thousands).run()
