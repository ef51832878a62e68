
"""The answer in a prediction: boxes, `####` lines, phrases, delimited mathematics, last number.

Every search is one forward pass with regular expressions that cannot backtrack over more than a bounded
number of characters, so the time is linear in the text, which is cut to its last 100,000 characters.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from rewards import dates
from rewards.answers import single_escaped
from rewards.canonical import is_stock_phrase
from rewards.limits import TEXT_TAIL, LimitError, ParseError
from rewards.nodes import Listing, Measure, Node, Relation, Text, walk
from rewards.parser import parse
from rewards.unicode import to_latex
from rewards.verdict import Mode
from rewards.wordsets import word_set


@dataclass(frozen=True, slots=True)
class Candidate:
    """An answer text. `parts` are the contents of the boxes joined to it, itself last; `hedged`: by "or".

    `spread` are the boxes of its sentence where words stand between them, `labels` the names before them.
    """

    text: str
    parts: tuple[str, ...] = ()
    hedged: bool = False
    spread: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()

    @property
    def group(self) -> str:
        return (" or " if self.hedged else ", ").join(self.parts)


@dataclass(frozen=True, slots=True)
class Box:
    start: int
    end: int
    content: str


_BOX_TOKEN = re.compile(
    r"\\{1,2}(?:[a-zA-Z]{0,12}boxed|fbox|framebox)(?![a-zA-Z])\s*|\x08oxed(?=\{)|\\.|[{}]", re.DOTALL
)
_UNBRACED = re.compile(
    r"(?:[-+]?\d[\d,]*(?:\.\d+)?|\\[dt]?frac\s?(?:\d\s?\d|\{[^{}]{1,40}\}\s?\{[^{}]{1,40}\}))(?![\w{])"
)
_JOIN_NOISE = re.compile(r"\\(?:quad|qquad|text|mathrm|textbf|,|;|:|!|\(|\)|\[|\]|\\)|[\s${}&~*]")
_BREAK = re.compile(
    r"\n|[.!?](?:\s|$)|[+*/^<>|]|\}\{|\s-\s"
    r"|\\(?:implies|Rightarrow|to|rightarrow|therefore|neq?|approx|cdot|times|div|pm|mp|colon)(?![a-zA-Z])"
)
_PLAIN_WORDS = re.compile(r"[a-z]+(?:'t)?")
_NAME_BEFORE = re.compile(
    r"(?<![A-Za-z\\])([A-Za-z](?:_(?:\w|\{\w{1,4}\}))?)\$?\s{0,2}(?:=|is|equals)\s{0,2}(?:\$|\\\()?\s{0,2}\Z"
)
_TURN = word_set(
    "or then next so thus hence therefore gives giving yields implies because since but not no isn't never wait hmm "
    "actually instead maybe perhaps possibly probably either neither unless if when than rather correct corrected "
    "correction wrong mistake error should would could might guess try alternatively otherwise equals becomes simplifies "
    "means from to again check finally later step plus minus times"
)
"""Words between two boxes that make the first a step, a guess or a mistake, not a part of the answer."""
_SPREAD_BOXES = 9
_JOINS = frozenset({"", ",", ";", "and", "or", ",and", ",or"})
_STOP_TOKENS = (
    "<|im_end|>",
    "<|im_start|>",
    "<|endoftext|>",
    "<|eot_id|>",
    "<|end|>",
    "</s>",
    "<|end_of_text|>",
)
_THINK_ENDS = ("</think>", "</thinking>", "<|/think|>")


def visible(text: str) -> str:
    """The part of a prediction that is its answer: its tail, after the reasoning, before a stop token."""
    text = text[-TEXT_TAIL:]
    for marker in _THINK_ENDS:
        _, found, after = text.rpartition(marker)
        if found:
            text = after
    for marker in _STOP_TOKENS:
        at = text.find(marker)
        if at > 0 and text[:at].strip():
            text = text[:at]
    return text


def boxes(text: str) -> list[Box]:
    """Complete, non-empty boxes in order of their ends; of nested ones the outermost."""
    if "box" not in text and "\x08oxed" not in text:
        return []
    found: list[Box] = []
    stack: list[tuple[int, int]] = []  # (start of the box or -1, start of its content)
    pending = -1
    for match in _BOX_TOKEN.finditer(text):
        token = match.group()
        if token == "{":
            start = pending if pending >= 0 and text[match.start() - 1] != "{" else -1
            stack.append((start, match.end()))
            pending = -1
        elif token == "}":
            pending = -1
            if stack:
                start, inside = stack.pop()
                content = text[inside : match.start()]
                if start >= 0 and content.strip(" $\n\t~"):
                    while found and found[-1].start > start:
                        found.pop()
                    found.append(Box(start, match.end(), content))
        elif "box" in token or token.startswith("\x08"):
            pending = -1
            if text[match.end() : match.end() + 1] == "{":
                pending = match.start()
            elif bare := _UNBRACED.match(text, match.end()):
                found.append(Box(match.start(), bare.end(), bare.group()))
        else:
            pending = -1
    return found


def sentence_boxes(text: str, found: list[Box]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Boxes of the last sentence with plain words between them, and the name that stands before each."""
    chain = [found[-1]]
    for box in reversed(found[-_SPREAD_BOXES:-1]):
        between = text[box.end : chain[0].start]
        if len(between) > 80 or _BREAK.search(between) or _TURN & set(_PLAIN_WORDS.findall(between.lower())):
            break
        if "=" in between and not _NAME_BEFORE.search(between):
            break
        chain.insert(0, box)
    if not 1 < len(chain) < _SPREAD_BOXES:
        return (), ()
    names = [_NAME_BEFORE.search(text[max(0, box.start - 40) : box.start]) for box in chain]
    labels = tuple(name.group(1) for name in names if name)
    return tuple(box.content.strip(" $") for box in chain), labels if len(labels) == len(chain) else ()


def joined(text: str, found: list[Box]) -> Candidate:
    """The last box, with the boxes before it that nothing but "," "and" "or" or space separates from it."""
    last = found[-1]
    parts, hedged = [last.content.strip(" $")], False
    spread, labels = sentence_boxes(text, found)
    for before, after in zip(reversed(found[:-1]), reversed(found[1:]), strict=True):
        between = text[before.end : after.start]
        join = _JOIN_NOISE.sub("", between).lower().rstrip(".") if len(between) <= 80 else "far"
        if join not in _JOINS or "}{" in between or len(parts) >= 64:
            break
        hedged = hedged or join.endswith("or")
        parts.append(before.content.strip(" $"))
    if len(set(parts)) == 1:
        return Candidate(last.content, spread=spread, labels=labels)
    return Candidate(last.content, tuple(reversed(parts)), hedged, spread, labels)


def marked(text: str) -> str | None:
    """The text after the last `####`, to the end of its line."""
    _, found, after = text.rpartition("####")
    if not found:
        return None
    line = after.strip().split("\n", 1)[0].strip()
    return line or None


_PHRASE = re.compile(
    r"(?:answers?|ans|result|solution|(?:correct|right) (?:option|choice))\b\**\s{0,3}(?:\([^()\n]{0,30}\)\s?)?(?:\*\*)?\s{0,3}"
    r"(?:is indeed|is therefore|is thus|is simply|is equal to|is given by|(?:is|are|was)(?!n['’]t)|equals"
    r"|would be|should be|must be|[:：=])"
    r"|故选\s{0,3}[:：]?|答案\s{0,3}(?:应该是|应为|就是|是|为|等于|[:：])|(?:^|\n)\s{0,3}(?:\*\*)?A(?:\*\*)?:",
    re.IGNORECASE,
)
_STRONG_PHRASE = re.compile(r"answers?\b|ans\b|答案|故选|A:", re.IGNORECASE)
_SENTENCE_END = re.compile(
    r"(?<!\.)\.(?:\s|\*|$)|\n|。|！|；|\bI hope\b|\bbecause\b|\bsince\b"
    r"|,\s(?:which|so|as|where|because|since|but|not)\b|<\|",
    re.IGNORECASE,
)
_OPENERS = re.compile(r"\$\$|\$|\\\(|\\\[")
_CLOSERS = {"$$": "$$", "$": "$", "\\(": "\\)", "\\[": "\\]"}
_SEGMENT_CHARS = 2000
_WORDS = re.compile(r"(?<![\\a-zA-Z{])[^\W\d_]{2,}|[\u0400-\u1dff\u3040-\ud7af]|\n")
_TEXT_WRAPPER = re.compile(r"\\(?:text|mathrm|textbf|mbox)\s?\{([^{}]{0,200})\}")
_BOLD = re.compile(r"\*\*([^*\n]{1,200})\*\*")
_NUMBER = re.compile(
    r"(?<![A-Za-z0-9_\\^{.,/])(?:(?<![\d)\]}])[-+−]\s?)?[$€£]?\s?"
    r"(?:\d{1,3}(?: \d{3})*\s\d{1,9}/\d{1,9}"
    r"|\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d{1,3}(?: \d{3})+(?![\d/])(?:\.\d+)?|\d{1,300},\d{1,2}(?![\d,])"
    r"|\d{1,300}(?:\.\d{1,300})?(?:\s?/\s?\d{1,300})?|\.\d{1,300})"
    r"(?:\s?(?:\\?%|percent\b|pct\b|°))?"
    r"|-?\\[dt]?frac\{[^{}]{1,40}\}\{[^{}]{1,40}\}|-?\d{0,20}\\sqrt\{[^{}]{1,40}\}"
)
_CHOICE_START = re.compile(r"(?:\\text(?:bf)?\{)?\(?([A-J])[).:]\}?(?=\s|$|\*)")
_LETTER = re.compile(r"(?:[a-z]{1,12} ){0,2}\(?([A-J])\)?(?=[,;](?!\s?\(?[A-J0-9]\b)|\.(?:\s|$)|[．。]|$)")
_APPROXIMATED = re.compile(r"(?:,\s?(?:or\s)?|\(|\sor\s)(?:about|approximately|roughly|around|approx\.?|≈)\s?\$?\Z")
_OPTION = re.compile(
    r"\b(?i:option|choice)\s\(?([A-J])\)?(?=\sis\s(?:the\s)?(?:correct|right|best)\b|\s?\.?\s{0,3}\Z)"
    r"|\b(?i:it's|it is|choose|select|pick)\s\(?([A-J])\)?(?=\s?\.?\s{0,3}\Z)"
)
_CODE = re.compile(
    r"__\w|\blambda\b|\bimport\b|\bopen\s?\(|\bexec\b|\beval\b|\bos\.|\bsys\.|\bsubprocess\b|\bgetattr\b|globals\(\)"
    r"|\\(?:write|input|immediate)|\bsystem\s?\("
)
_HEDGES = word_set("i not cannot unable sorry know we you")
_DISCOURSE = re.compile(
    r"\A(?:(?:so|thus|hence|therefore|then|finally|we (?:get|have|find|obtain)"
    r"|it is|it's|equal to|indeed)(?: that)?,?\s+){1,3}",
    re.IGNORECASE,
)
_SPELT_OUT = re.compile(r"(?<=\d)\s\([A-Za-z][A-Za-z -]{2,40}\)$")
_NOT_ANSWERS = word_set(
    "correct right wrong incorrect helpful clear useful as follows unknown unclear complete"
)


_CONNECTIVE = re.compile(r"(?<![A-Za-z\\{])(?:so|then|thus|hence|we|get|as|by|at|be)\s{1,3}(?=[$\\(A-Za-z0-9-])")


def readable(text: str, words: int = 4) -> bool:
    """Whether `text` is an answer by itself: mathematics, or a few words."""
    text = text.strip()
    if not text or len(text) > 600 or _CONNECTIVE.search(text):
        return False
    if dates.read(text):
        return True
    try:
        node = parse(single_escaped(to_latex(text)))
    except (ParseError, LimitError):
        return False
    if isinstance(node, Text):
        found = node.words.split()
        if is_stock_phrase(node.words):
            return True
        return len(found) <= words and found[0] not in _NOT_ANSWERS and not _HEDGES & set(found)
    return not prose(node)


def prose(node: Node) -> bool:
    """Words where an answer has none: "Therefore, x = 16", "Total: 5". A name before "=" is allowed."""
    match node:
        case Listing(items, _):
            kinds = {isinstance(item, Text) for item in items}
            return len(kinds) > 1 or any(prose(item) for item in items)
        case Relation((Text(words), *rest), ("=", *_)):
            return len(words.split()) > 4 or any(prose(item) for item in rest)
        case Measure(_, words):
            if len(words) > 6 or _HEDGES & {word.lower() for word in words}:
                return True
    return any(isinstance(item, Text) for item in walk(node)) and not isinstance(node, Text)


def trimmed(text: str) -> str:
    text = text.strip().strip("_\"'`").strip()
    if text[:1] == text[-1:] == "*":
        text = text.strip("*")
    text = _DISCOURSE.sub("", text)
    if not text.endswith((r"\ldots", "..", "…")):
        text = text.rstrip(".,;:。").strip()
    if text[:1] == text[-1:] == "*":
        text = text.strip("*").strip()
    whole = next(segments(text), None) if text[:1] in ("$", "\\") and len(text) <= _SEGMENT_CHARS else None
    return whole.content if whole and (whole.start, whole.end) == (0, len(text)) else text


@dataclass(frozen=True, slots=True)
class Segment:
    """Delimited mathematics: its span with the delimiters, and what is between them."""

    start: int
    end: int
    content: str


def segments(text: str, at: int = 0) -> Iterator[Segment]:
    """`$..$`, `$$..$$`, `\\(..\\)`, `\\[..\\]` from left to right; an opener without a closer is skipped."""
    while opener := _OPENERS.search(text, at):
        close = _CLOSERS[opener.group()]
        end = text.find(close, opener.end(), opener.end() + _SEGMENT_CHARS)
        content = text[opener.end() : end] if end >= 0 else ""
        if not content.strip() or (close == "$" and ("\n" in content or content.endswith("\\"))):
            at = opener.end()
            continue
        at = end + len(close)
        yield Segment(opener.start(), at, content.strip())


def from_tail(tail: str) -> str | None:
    """The answer at the start of what follows "the answer is"."""
    tail = tail[:1500].lstrip(" \t\r\n:：*_>")
    if not tail or tail.startswith("not "):
        return None
    first = next(segments(tail), None)
    first = first if first and first.start == 0 else None
    end = _SENTENCE_END.search(tail, first.end if first else 0)
    sentence = _SPELT_OUT.sub("", trimmed(tail[: end.start() if end else len(tail)]))
    if readable(sentence):
        return sentence
    if first and readable(first.content):
        return first.content
    choice = _CHOICE_START.match(tail)
    if choice:
        return choice.group(1)
    letter = _LETTER.match(tail)
    if letter:
        return letter.group(1)
    number = _NUMBER.match(tail)
    if number and number.group().strip():
        return number.group().strip()
    for verb in (" is ", " are ", " = ", ": "):
        _, found, rest = sentence.rpartition(verb)
        if found and readable(trimmed(rest)):
            return trimmed(rest)
    return last_value(sentence)


def phrase(text: str) -> tuple[str, int, bool] | None:
    """What the last usable phrase announces, where the phrase ends, and whether it says "answer"."""
    for match in reversed(list(_PHRASE.finditer(text))[-8:]):
        strong = bool(_STRONG_PHRASE.search(match.group()))
        rest = text[match.end() : match.end() + 1500]
        end = _SENTENCE_END.search(rest)
        if not strong and end and re.search(r"\d", rest[end.end() :]):
            continue  # "the result is 5. Then ..." announces a step
        value = from_tail(rest)
        if value is not None:
            return value, match.end(), strong
    return None


def last_value(text: str) -> str | None:
    """Whatever ends last of delimited mathematics, bold text and numbers."""
    if _CODE.search(text):
        return None
    if not _WORDS.search(text):  # one unreadable expression supplies no number from its inside
        return None
    found = list(segments(text))
    best: tuple[int, str] | None = next(
        ((segment.end, segment.content) for segment in reversed(found[-40:]) if readable(segment.content)),
        None,
    )
    for match in list(_BOLD.finditer(text))[-10:]:
        if (
            "nswer" not in match.group(1)
            and readable(match.group(1), words=3)
            and (best is None or match.end() > best[0])
        ):
            best = (match.end(), trimmed(match.group(1)))
    start = max(0, len(text) - 20_000)
    plain = blanked(text, found)
    for match in _NUMBER.finditer(plain, start):
        if best is not None and _APPROXIMATED.search(plain[max(0, match.start() - 24) : match.start()]):
            continue  # 5/9, or about 0.556
        if match.group().strip() and (best is None or match.end() > best[0]):
            best = (match.end(), match.group().strip())
    return best[1] if best else None


def blanked(text: str, found: list[Segment]) -> str:
    """`text` with its delimited mathematics replaced by spaces."""
    parts, at = [], 0
    for segment in found:
        parts += [text[at : segment.start], " " * (segment.end - segment.start)]
        at = segment.end
    return "".join(parts) + text[at:]


def lenient(text: str) -> Candidate | None:
    found = boxes(text)
    spoken = phrase(text[-20_000:])
    if found:
        offset = max(0, len(text) - 20_000)
        if spoken and spoken[2] and spoken[1] + offset > found[-1].end and "boxed" not in spoken[0]:
            value = spoken[0]
            if any(char.isdigit() for char in value) and readable(value, words=0):
                return Candidate(value)
        return unspoken(joined(text, found))
    tagged = text.rfind("<answer>")
    if tagged >= 0:
        content = text[tagged + 8 :].split("</answer>", 1)[0].strip()
        if readable(content):
            return Candidate(content)
        if content and content != text.strip():
            inner = lenient(content)
            return inner or Candidate(content)
    hashes = marked(text)
    if hashes is not None:
        return unspoken(Candidate(hashes))
    if spoken:
        return Candidate(spoken[0])
    option = next(reversed(list(_OPTION.finditer(text[-2000:]))), None)
    if option:
        return Candidate(option.group(1) or option.group(2))
    whole = trimmed(text)
    if (
        "\n" not in whole
        and len(whole) <= 300
        and not _CODE.search(whole)
        and not _BOLD.search(whole)
        and readable(whole)
    ):
        return Candidate(whole)
    if len(whole) <= 80 and "\n" not in whole and _CHOICE_START.match(whole):
        return Candidate(whole)
    value = last_value(text)
    return Candidate(whole_formula(whole, value)) if value else None


def whole_formula(text: str, value: str) -> str:
    """ "The function is f(x) = x + 1": of a formula that ends the text all of it, not only its last number."""
    for verb in (" is ", " are "):
        _, found, tail = text[-300:].rpartition(verb)
        if found and tail.endswith(value) and len(tail) > len(value) and not _WORDS.search(tail) and readable(tail, words=0):
            return tail
    return value


def unspoken(candidate: Candidate) -> Candidate:
    """A box or line that holds a sentence, "The answer is 5", stands for the answer in it."""
    content = candidate.text
    if candidate.parts or "nswer" not in content or len(content) > 1000:
        return candidate
    spoken = phrase(_TEXT_WRAPPER.sub(r"\1", content))
    return Candidate(spoken[0]) if spoken else candidate


def find(prediction: str, mode: Mode) -> Candidate | None:
    """The answer in `prediction`, or None. Strict: the last box, else the `####` line."""
    text = visible(prediction)
    if mode == "lenient":
        found = lenient(text)
        if found is None and text is not prediction:
            found = lenient(prediction[-TEXT_TAIL:])
        return found
    found_boxes = boxes(text)
    if found_boxes:
        return unspoken(joined(text, found_boxes))
    hashes = marked(text)
    return unspoken(Candidate(hashes)) if hashes is not None else None


def together(candidate: Candidate) -> str:
    """The boxes of the last sentence as one list, with their names where all have one."""
    if candidate.labels:
        return ", ".join(f"{name} = {part}" for name, part in zip(candidate.labels, candidate.spread, strict=True))
    return ", ".join(candidate.spread)


def find_gold(gold: str) -> str:
    """The answer in a gold text: its boxes, its `####` line, what "the answer is" announces, or all of it."""
    gold = gold[-TEXT_TAIL:]
    found = boxes(gold)
    if found:
        candidate = joined(gold, found)
        if candidate.spread and not candidate.parts:
            return together(candidate)
        return candidate.group if candidate.parts and not candidate.hedged else candidate.text
    if "####" in gold:
        return marked(gold) or ""
    if "answer is" in gold and (spoken := phrase(gold[-20_000:])):
        return spoken[0]
    return gold.replace("\\boxed", "").replace("\\fbox", "").strip()
