"""Trees brought to one form before they are compared: assignments, chains, plus-minus signs, unit marks."""

from __future__ import annotations

from itertools import product

from rewards import nodes as n
from rewards.nodes import Node

_ARTICLES = frozenset({"a", "an", "the"})
_SYNONYMS = {
    "no solution": "empty set", "no solutions": "empty set", "no real solution": "empty set",
    "no real solutions": "empty set", "empty": "empty set", "there are no solutions": "empty set",
    "all reals": "all real numbers", "real numbers": "all real numbers",
    "every real number": "all real numbers", "dne": "does not exist", "infinity": "infinite",
}  # fmt: skip


def plain_words(words: str) -> str:
    kept = [word for word in words.lower().split() if word not in _ARTICLES]
    joined = " ".join(kept) if kept else words.lower()
    return _SYNONYMS.get(joined, joined)


def is_stock_phrase(words: str) -> bool:
    """ "no solution", "does not exist": words that are an answer by themselves."""
    return plain_words(words) in _SYNONYMS or plain_words(words) in _SYNONYMS.values()


def is_name(node: Node) -> bool:
    """What stands left of "=" in an assignment: x, x_1, f(x), AB, |AB|, (x, y), words."""
    match node:
        case n.Sym() | n.Text() | n.Const("e" | "i"):
            return True
        case n.Func(name, args) if name.startswith("apply:") or name in ("abs", "deg", "norm"):
            return all(is_name(arg) or isinstance(arg, n.Num) for arg in args)
        case n.Func("det" | "sin" | "cos" | "tan" | "cot" | "sec" | "csc" | "arg", _):
            return bool(n.symbols(node))
        case n.Seq(_, items, _):
            return all(isinstance(item, n.Sym | n.Const) for item in items)
        case n.Ratio(items):
            return all(is_name(item) for item in items)
        case n.Mul(factors) if any(isinstance(f, n.Pow) for f in factors):
            return is_quotient(node)
        case n.Mul(factors):
            letters = [f.name for f in factors if isinstance(f, n.Sym)]
            return len(letters) == len(factors) > 0 and all(letter.isupper() for letter in letters[:1])
        case n.Measure(value, _):
            return is_name(value)
    return False


def is_quotient(node: Node) -> bool:
    """x/y, AB/CD, dy/dx: names over names, which a question asks for as one value."""
    match node:
        case n.Mul((top, n.Pow(bottom, n.MINUS_ONE))):
            differential = [side for side in (top, bottom) if isinstance(side, n.Mul) and side.factors[0] == n.Sym("d")]
            if len(differential) == 2:
                return all(len(side.factors) == 2 and isinstance(side.factors[1], n.Sym) for side in differential)
            short = [not isinstance(side, n.Text) or len(side.words) == 2 for side in (top, bottom)]  # the segment NO
            return all(short) and all(is_name(side) and not isinstance(side, n.Const | n.Seq) for side in (top, bottom))
    return False


def is_compound_name(node: Node) -> bool:
    """Names whose order says something: (x, y), x:y, x/y."""
    return isinstance(node, n.Seq | n.Ratio) or is_quotient(node)


def canonical(node: Node) -> Node:
    """Chains reduced to what they assert, signs of based numbers pulled in, `x in S` to S."""
    match node:
        case n.Relation(members, ops) if "~" in ops:
            cut = ops.index("~")
            if cut == 0 and is_name(members[0]):
                return canonical(n.Relation(members[:2], ("=",)))
            return canonical(members[0] if cut == 0 else n.Relation(members[: cut + 1], ops[:cut]))
        case n.Relation((first, inside), ("in",)) if is_name(first):
            return canonical(inside)
        case n.Relation(members, ops) if all(op == "=" for op in ops):
            last = members[-1]
            if all(not n.symbols(m) and not isinstance(m, n.Text) for m in members):
                return canonical(last)
            if len(members) > 2 and (is_name(members[0]) or not n.symbols(last)):
                return (
                    canonical(n.Relation((members[0], last), ("=",)))
                    if is_name(members[0])
                    else canonical(last)
                )
            if len(members) == 2 and is_name(last) and not is_name(members[0]):
                return n.Relation((last, canonical(members[0])), ("=",))
            if len(members) == 2 and is_name(members[0]):
                return n.Relation((members[0], canonical(last)), ("=",))
        case n.Ratio((n.Text(), value)) if not isinstance(value, n.Text):  # a heading, "Solution set: {1, 2}"
            return canonical(value)
        case n.Listing(items, joiner):
            return n.Listing(tuple(canonical(item) for item in items), joiner)
        case n.Mul((n.Num(value, None), n.Based(digits, base))) if value == -1:
            return n.Based("-" + digits, base)
        case n.Mul((n.Sym(), n.Seq() as point)):  # a named point, A(1, 2)
            return point
        case n.Measure(value, words):
            inner = canonical(value)
            if isinstance(inner, n.Relation) and inner.ops == ("=",):
                return n.Relation((inner.members[0], n.Measure(inner.members[1], words)), ("=",))
            return n.Measure(inner, words)
    return node


def assigned(node: Node) -> Node | None:
    """The value of `name = value`, None for anything else."""
    match node:
        case n.Relation((name, value), ("=",)) if is_name(name) and not defines_itself(name, value):
            return value
        case n.Listing((n.Relation((name, first), ("=",)), *rest), joiner) if is_name(name) and not any(
            isinstance(item, n.Relation) for item in rest
        ):
            return n.Listing((first, *rest), joiner)
        case n.Measure(value, words):
            inner = assigned(value)
            return None if inner is None else n.Measure(inner, words)
    return None


def defines_itself(name: Node, value: Node) -> bool:
    """x = x + 1 and f(x) = 2 f(x - 1) give no value."""
    if isinstance(name, n.Func) and name.name.startswith("apply:"):
        return any(isinstance(item, n.Func) and item.name == name.name for item in n.walk(value))
    if is_quotient(name) and "d" in n.symbols(name):  # dy/dx = 2x
        return "d" in n.symbols(value)
    return bool(n.symbols(name) & n.symbols(value))


def assigned_items(node: Node) -> tuple[Node, ...] | None:
    """The values of a list of assignments, in order."""
    if not isinstance(node, n.Listing):
        return None
    values = [assigned(item) for item in node.items]
    found = [value for value in values if value is not None]
    return tuple(found) if len(found) == len(values) else None


def same_variable(node: Node) -> bool:
    """x = 1 or x = 2; x_1 = 1, x_2 = 2: values of one unknown, so their order does not matter."""
    if not isinstance(node, n.Listing):
        return False
    names: set[str] = set()
    for item in node.items:
        if not isinstance(item, n.Relation) or not isinstance(item.members[0], n.Sym):
            return False
        names.add(item.members[0].name.split("_")[0])
    return len(names) == 1


def signs(node: Node, plus: bool) -> Node:
    """The tree with every plus-minus read as its upper (plus) or lower sign."""
    match node:
        case n.PlusMinus(arg, flipped):
            inner = signs(arg, plus)
            return inner if plus != flipped else n.negate(inner)
        case n.Add(terms):
            return n.Add(tuple(signs(term, plus) for term in terms))
        case n.Mul(factors):
            return n.Mul(tuple(signs(factor, plus) for factor in factors))
        case n.Pow(base, exponent):
            return n.Pow(signs(base, plus), signs(exponent, plus))
        case n.Func(name, args):
            return n.Func(name, tuple(signs(arg, plus) for arg in args))
        case n.Seq(opener, items, closer):
            return n.Seq(opener, tuple(signs(item, plus) for item in items), closer)
        case n.Relation(members, ops):
            return n.Relation(tuple(signs(member, plus) for member in members), ops)
        case n.Measure(value, words):
            return n.Measure(signs(value, plus), words)
    return node


def independent_signs(node: Node) -> n.Listing | None:
    """Every choice of the signs of a sum with several of them: the four values of \\pm 1 \\pm 2i."""
    if not isinstance(node, n.Add):
        return None
    free = [isinstance(term, n.PlusMinus) and not term.flipped for term in node.terms]
    if not 2 <= sum(free) <= 3 or sum(map(has_signs, node.terms)) != sum(free):
        return None
    choices = [
        (signs(term, True), signs(term, False)) if both else (term,) for term, both in zip(node.terms, free, strict=True)
    ]
    return n.Listing(tuple(n.Add(terms) for terms in product(*choices)))


def has_signs(node: Node) -> bool:
    return any(isinstance(item, n.PlusMinus) for item in n.walk(node))


def expand_signs(node: Node) -> Node:
    if not has_signs(node):
        return node
    match node:
        case n.Listing(items, joiner):
            return n.Listing(expanded(items), joiner)
        case n.Braces(items):
            return n.Braces(expanded(items))
    return n.Listing((signs(node, True), signs(node, False)), "or")


def expanded(items: tuple[Node, ...]) -> tuple[Node, ...]:
    result: list[Node] = []
    for item in items:
        result.extend((signs(item, True), signs(item, False)) if has_signs(item) else (item,))
    return tuple(result)


def is_calculation(node: n.Relation) -> bool:
    """6 * 7 = 42: an equation without unknowns, all of whose members state the answer."""
    return all(op == "=" for op in node.ops) and all(
        not n.symbols(m) and not isinstance(m, n.Text) and not is_name(m) for m in node.members
    )


def degrees(node: Node) -> bool:
    match node:
        case n.Func("deg", _):
            return True
        case n.Mul((n.Num(value, _), n.Func("deg", _))) if value == -1:
            return True
    return False


def unmeasured(node: Node) -> tuple[Node, tuple[str, ...]]:
    match node:
        case n.Measure(value, words):
            inner, more = unmeasured(value)
            return inner, more or words
        case n.Func("deg", (arg,)):
            return arg, ("degree",)
        case n.Mul((n.Num(value, _), n.Func("deg", (arg,)))) if value == -1:
            return n.negate(arg), ("degree",)
    return node, ()


def is_percent(node: Node) -> bool:
    match node:
        case n.Func("percent", _):
            return True
        case n.Mul((n.Num(value, _), n.Func("percent", _))) if value == -1:
            return True
    return False


def strip_percent(node: Node) -> Node:
    match node:
        case n.Func("percent", (arg,)):
            return arg
        case n.Mul((n.Num(value, _), n.Func("percent", (arg,)))) if value == -1:
            return n.negate(arg)
    return node
