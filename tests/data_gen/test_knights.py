from __future__ import annotations

import itertools
import random
import re
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.errors import ConfigError, InputError
from configs.rows import Problem
from data_gen.decontaminate import decontaminate
from data_gen.knights import puzzles
from data_gen.knights.logic import Claims, Compound, Leaf, Op, Statement, core, leaves, replaced, solve, truth
from data_gen.knights.puzzles import PERTURBED, REWORDED, generate, split_of
from data_gen.knights.reasoning import reason
from data_gen.knights.words import NAMES, OTHER_NAMES
from rewards import verify

SYMMETRIC = ("and", "or", "iff")


def holds(statement: Statement, knights: Sequence[bool]) -> bool:
    """Whether a statement is true when these are the knights, by the meaning of the words alone."""
    if isinstance(statement, Leaf):
        return knights[statement.person] == statement.knight
    parts = [holds(part, knights) for part in statement.parts]
    if statement.op == "not":
        return not parts[0]
    if statement.op == "implies":
        return parts[1] if parts[0] else True
    if statement.op == "iff":
        return parts[0] == parts[1]
    return all(parts) if statement.op == "and" else any(parts)


def by_brute_force(claims: Claims) -> set[tuple[bool, ...]]:
    """Every assignment in which knights say what is true and knaves what is false."""
    everyone = itertools.product((False, True), repeat=len(claims))
    return {a for a in everyone if all(holds(s, a) == a[i] for i, s in enumerate(claims))}


@st.composite
def random_claims(draw: st.DrawFn, most: int = 6) -> Claims:
    people = draw(st.integers(2, most))
    leaf = st.builds(Leaf, st.integers(0, people - 1), st.booleans())

    def compound(part: st.SearchStrategy[Statement]) -> st.SearchStrategy[Statement]:
        return st.one_of(
            st.builds(Compound, st.just("not"), st.tuples(part)),
            st.builds(Compound, st.sampled_from(["implies", "iff"]), st.tuples(part, part)),
            st.builds(Compound, st.sampled_from(["and", "or"]), st.lists(part, min_size=2, max_size=3).map(tuple)),
        )

    return draw(st.tuples(*[st.recursive(leaf, compound, max_leaves=6)] * people))


# --- the solver -----------------------------------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(random_claims(most=8))
def test_the_solver_finds_what_trying_everything_finds(claims: Claims):
    found = solve(claims)
    assert set(found) == by_brute_force(claims)
    assert len(set(found)) == len(found)


@settings(max_examples=50, deadline=None)
@given(random_claims())
def test_a_truth_table_holds_the_truth_under_every_assignment(claims: Claims):
    people = len(claims)
    table = truth(claims[0], people)
    for number in range(1 << people):
        assert bool(table >> number & 1) == holds(claims[0], [bool(number >> i & 1) for i in range(people)])
    assert table < 1 << (1 << people)


def test_known_puzzles():
    knave = Leaf(0, False)
    assert solve((knave, Leaf(1, True))) == []  # "I am a knave" can be said by nobody
    both_knaves = Compound("and", (Leaf(0, False), Leaf(1, False)))
    assert solve((both_knaves, Leaf(1, True))) == [(False, True)]
    assert solve((Leaf(1, True), Leaf(0, True))) == [(False, False), (True, True)]


# --- the reasoner ---------------------------------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(random_claims())
def test_every_step_follows_from_one_claim_and_the_last_state_is_a_solution(claims: Claims):
    possible = by_brute_force(claims)
    if not possible:
        with pytest.raises(ValueError, match="no solution"):
            reason(claims)
        return
    everyone = list(itertools.product((False, True), repeat=len(claims)))
    known: dict[int, bool] = {}
    opened: list[tuple[int, dict[int, bool]]] = []
    for step in reason(claims):
        worlds = [a for a in everyone if all(a[p] == k for p, k in known.items())]
        statement = claims[step.speaker]
        for person, _ in step.roles:
            assert person not in known or step.kind == "reject"
        if step.kind == "suppose":
            [(person, knight)] = step.roles
            assert knight
            opened.append((person, dict(known)))
        elif step.kind == "told":
            assert known[step.speaker] == step.claim_true
            fitting = [a for a in worlds if holds(statement, a) == step.claim_true]
            assert fitting and all(a[p] == k for a in fitting for p, k in step.roles)
        elif step.kind == "judged":
            assert step.roles == ((step.speaker, step.claim_true),)
            assert all(holds(statement, a) == step.claim_true for a in worlds)
        elif step.kind == "impossible":
            assert all(holds(statement, a) == step.claim_true != known[step.speaker] for a in worlds)
        elif step.kind == "reject":
            person, known = opened.pop()
            assert step.roles == ((person, False),)
        known.update(step.roles)
    assert tuple(known[i] for i in range(len(claims))) in possible


# --- the core -------------------------------------------------------------------------------------


def moved(statement: Statement, place: Mapping[int, int], rng: random.Random) -> Statement:
    """The same statement about people who stand in other places, symmetric parts in another order."""
    if isinstance(statement, Leaf):
        return Leaf(place[statement.person], statement.knight)
    parts = [moved(part, place, rng) for part in statement.parts]
    if statement.op in SYMMETRIC:
        rng.shuffle(parts)
    return Compound(statement.op, tuple(parts))


@settings(max_examples=80, deadline=None)
@given(random_claims(), st.randoms(use_true_random=False))
def test_the_core_knows_no_names_and_no_order(claims: Claims, rng: random.Random):
    people = len(claims)
    order = rng.sample(range(people), people)
    place = {person: i for i, person in enumerate(order)}
    assert core(tuple(moved(claims[person], place, rng) for person in order)) == core(claims)


def test_the_core_tells_a_changed_leaf_and_the_direction_of_an_implication():
    first = Compound("implies", (Leaf(0, True), Leaf(1, True)))
    claims = (first, Leaf(0, False))
    turned = Compound("implies", first.parts[::-1])
    others = [(turned, Leaf(0, False)), (first, Leaf(0, True)), (replaced(first, (1,), Leaf(1, False)), Leaf(0, False))]
    assert len({core(c) for c in (claims, *others)}) == 4
    assert core((first, Compound("not", (Leaf(0, True),)))) == core(claims)


# --- puzzles in words, read back ------------------------------------------------------------------


class Reader:
    """Reads a question back into claims: a parser of its own, which knows nothing of how the words were made."""

    def __init__(self, question: str) -> None:
        told = re.findall(r'(\w+) (?:says|tells you|claims|remarks|declares): "([^"]+)\."', question)
        self.knight, self.knave = self.kinds(question)
        _, _, form = question.partition("#### ")
        self.names = re.findall(r"(\w+): ROLE", form)
        self.order = [name for name, _ in told]
        by_name = {name: self.statement(text, name) for name, text in told}
        self.claims = tuple(by_name[name] for name in self.names)

    @staticmethod
    def kinds(question: str) -> tuple[str, str]:
        """The words for those who tell the truth and those who lie."""
        habit = "(?:always tell the truth|only say what is true)"
        found = re.search(rf"(?:live|are) (\w+)s, who {habit}, and (\w+)s, who", question)
        found = found or re.search(r"everybody is an? (\w+) or an? (\w+)\. An? \1 never lies, and an? \2 never tells", question)
        assert found, question
        return found[1], found[2]

    def statement(self, text: str, speaker: str) -> Statement:
        parts = self.split(text, speaker, ", or both", " or ") or self.split(text, speaker, ", or several of these", " or ")
        if parts:
            return Compound("or", parts)
        lower = text[0].lower() + text[1:]
        if lower.startswith("if "):
            pieces = top_level(lower[3:], ", then ")
            assert len(pieces) == 2
            return Compound("implies", tuple(self.part(p, speaker) for p in pieces))
        joining: tuple[tuple[Op, str], ...] = (("iff", " if and only if "), ("and", " and "))
        for op, word in joining:
            pieces = top_level(text, word)
            if len(pieces) > 1:
                return Compound(op, tuple(self.part(p, speaker) for p in pieces))
        if lower.startswith("it is not so that "):
            return Compound("not", (self.part(lower.removeprefix("it is not so that "), speaker),))
        return self.part(text, speaker)

    def split(self, text: str, speaker: str, end: str, word: str) -> tuple[Statement, ...] | None:
        if not text.endswith(end):
            return None
        return tuple(self.part(p, speaker) for p in top_level(text.removesuffix(end), word))

    def part(self, text: str, speaker: str) -> Statement:
        if text.startswith("("):
            assert text.endswith(")")
            return self.statement(text[1:-1], speaker)
        found = re.fullmatch(r"(?:(I) am|(\w+) is) (not )?an? (\w+)", text)
        assert found, text
        who = speaker if found[1] else found[2]
        leaf = Leaf(self.names.index(who), {self.knight: True, self.knave: False}[found[4]])
        return Compound("not", (leaf,)) if found[3] else leaf


def top_level(text: str, word: str) -> list[str]:
    """`text` split at `word` outside of brackets."""
    pieces, depth, last = [], 0, 0
    for i, char in enumerate(text):
        depth += {"(": 1, ")": -1}.get(char, 0)
        if depth == 0 and text.startswith(word, i):
            pieces.append(text[last:i])
            last = i + len(word)
    return [*pieces, text[last:]]


arguments = {
    "seed": st.integers(0, 2**63 - 1), "split": st.sampled_from(["train", "test"]), "depth": st.sampled_from([None, 2, 3]),
    "people": st.lists(st.integers(3, 8), min_size=1, max_size=3), "width": st.integers(2, 3),
}  # fmt: skip


@settings(max_examples=25, deadline=None)
@given(**arguments)
def test_what_the_question_says_has_one_solution_and_it_is_the_answer(seed, split, people, depth, width):
    for index, problem in enumerate(generate(4, split, seed, people, depth, width)):
        read = Reader(problem.question)
        [roles] = by_brute_force(read.claims)
        words = [read.knight if k else read.knave for k in roles]
        assert problem.answer == ", ".join(f"{n}: {w}" for n, w in zip(read.names, words, strict=True))
        assert problem.level == str(len(read.claims)) == str(people[index % len(people)])
        assert problem.core == core(read.claims)
        assert problem.solution and verify(problem.solution, problem.answer).outcome == "correct"


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**63 - 1), st.sampled_from(["train", "test"]), st.sampled_from([None, *PERTURBED, *REWORDED]))
def test_puzzles_of_two_people_and_all_their_versions_have_one_solution(seed, split, variant):
    for problem in generate(6, split, seed, (2,), variant=variant):
        assert solution(problem) == told(problem)


def solution(problem: Problem) -> tuple[bool, ...]:
    """Who are knights, in the order of the names: by trying everything; fails where that is not one assignment."""
    [knights] = by_brute_force(Reader(problem.question).claims)
    return knights


def told(problem: Problem) -> tuple[bool, ...]:
    """Who are knights by the problem's answer, in the order of the names in the question."""
    read = Reader(problem.question)
    words = dict(part.split(": ") for part in problem.answer.split(", "))
    assert list(words) == read.names and set(words.values()) <= {read.knight, read.knave}
    return tuple(word == read.knight for word in words.values())


@settings(max_examples=15, deadline=None)
@given(**arguments)
def test_perturbed_puzzles_differ_in_one_place_and_have_another_solution(seed, split, people, depth, width):
    originals = generate(4, split, seed, people, depth, width)
    for variant in PERTURBED:
        for before, after in zip(originals, generate(4, split, seed, people, depth, width, variant), strict=True):
            a, b = Reader(before.question), Reader(after.question)
            assert after.parents == [before.id] and after.id == f"{before.id}/{variant}"
            assert (a.names, a.order, a.knight) == (b.names, b.order, b.knight)
            assert solution(after) == told(after)
            assert solution(after) != solution(before)
            assert after.answer != before.answer
            [speaker] = [i for i, (x, y) in enumerate(zip(a.claims, b.claims, strict=True)) if x != y]
            old, new = (dict(leaves(claims[speaker])) for claims in (a.claims, b.claims))
            changed = [path for path in old if old[path] != new.get(path)]
            one_leaf = old.keys() == new.keys() and len(changed) == 1
            same_but_leaf = one_leaf and replaced(a.claims[speaker], changed[0], new[changed[0]]) == b.claims[speaker]
            assert same_but_leaf == (variant == "leaf")


@settings(max_examples=15, deadline=None)
@given(**arguments)
def test_reworded_puzzles_have_the_same_logic(seed, split, people, depth, width):
    originals = generate(4, split, seed, people, depth, width)
    for variant in REWORDED:
        for before, after in zip(originals, generate(4, split, seed, people, depth, width, variant), strict=True):
            a, b = Reader(before.question), Reader(after.question)
            assert a.claims == b.claims and before.core == after.core
            assert solution(after) == told(after) == told(before)
            assert (set(b.names) <= set(OTHER_NAMES)) == (variant == "names") == (a.names != b.names)
            assert (a.order != b.order) == (variant == "order") or variant == "names"
            assert (b.knight != "knight") == (variant == "roles")
            assert before.question != after.question


@settings(max_examples=8, deadline=None)
@given(seeds=st.tuples(st.integers(0, 99), st.integers(0, 99)), people=st.sampled_from([[2], [3], [2, 4]]))
def test_no_new_and_no_perturbed_puzzle_is_in_any_training_set(seeds, people):
    train = {p.core for p in generate(40, "train", seeds[0], people)}
    assert {split_of(c or "") for c in train} == {"train"}
    assert len(train) == 40
    new = {p.core for p in generate(40, "test", seeds[1], people)}
    perturbed = {p.core for v in PERTURBED for s in ("train", "test") for p in generate(10, s, seeds[0], people, variant=v)}
    assert {split_of(c or "") for c in new | perturbed} == {"test"}


def test_the_same_arguments_give_the_same_rows_and_more_begin_with_fewer():
    assert generate(12, "train", 5, (2, 3)) == generate(30, "train", 5, (2, 3))[:12]
    assert generate(12, "train", 5, (2, 3)) != generate(12, "train", 6, (2, 3))
    answers = generate(12, "train", 5, (2, 3), solutions="answer")
    assert [p.question for p in answers] == [p.question for p in generate(12, "train", 5, (2, 3))]
    assert all(p.solution == f"#### {p.answer}" for p in answers)


def test_one_puzzle_to_the_letter():
    """Seeds are promises: the same recipe has the same puzzles in every version."""
    [problem] = generate(1, "train", 0, (3,))
    assert problem == GOLDEN


def test_statements_have_no_idle_parts():
    for problem in generate(60, "train", 1, (2, 3)):
        claims = Reader(problem.question).claims
        everyone = list(itertools.product((False, True), repeat=len(claims)))

        def check(statement: Statement, everyone: list[tuple[bool, ...]] = everyone) -> None:
            assert len({holds(statement, a) for a in everyone}) == 2
            if isinstance(statement, Compound):
                tables = {tuple(holds(part, a) for a in everyone) for part in statement.parts}
                assert len(tables) == len(statement.parts)
                for part in statement.parts:
                    check(part)

        for statement in claims:
            check(statement)


def test_names_are_words_that_the_verifier_reads():
    assert not set(NAMES) & set(OTHER_NAMES)
    assert all(re.fullmatch("[A-Z][a-z]+", name) for name in (*NAMES, *OTHER_NAMES))
    assert len(NAMES) >= 8 <= len(OTHER_NAMES)


def test_a_used_up_kind_says_so(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(puzzles, "MAX_TRIES", 300)
    with pytest.raises(InputError, match="no new train puzzle of 2 people with depth 2 and width 2 in 300 tries"):
        generate(200, "train", 0, (2,), depth=2)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"split": "dev"}, "unknown split 'dev'"), ({"people": []}, "people must be"), ({"people": [9]}, r"not \[9\]"),
        ({"depth": 1}, "depth must be from 2 to 3"), ({"width": 4}, "width must be"), ({"count": -1}, "0 or more"),
    ],
)
def test_arguments_out_of_range(wrong, message):
    with pytest.raises(ConfigError, match=message):
        generate(**{"count": 1, "split": "train", "seed": 0, **wrong})


def test_decontamination_compares_puzzles_by_core_alone():
    train = generate(30, "train", 3)
    kept, dropped = decontaminate(train, [*generate(30, "test", 3), *generate(30, "train", 3, variant="leaf")])
    assert (kept, dropped) == (train, [])
    renamed = generate(5, "train", 3, variant="names")
    kept, dropped = decontaminate(train, renamed)
    assert kept == train[5:]
    assert [(d.problem, d.evaluation, d.reason) for d in dropped] == [
        (a.id, b.id, "core") for a, b in zip(train[:5], renamed, strict=True)
    ]


GOLDEN = Problem(
    id="knights/train/0/p3-dauto-w2/0",
    parents=[],
    stage="problems",
    source="knights",
    split="train",
    question="In this village everybody is a knight or a knave. A knight never lies, and a knave never tells the truth. Here "
    'are Max, Sam and Carl. Max remarks: "Sam is not a knave." Sam says: "If Carl is a knave, then Max is a knight." Carl '
    'tells you: "If Sam is a knight, then Max is a knight." What is each of them? End with a line of the form: #### Max: '
    "ROLE, Sam: ROLE, Carl: ROLE",
    answer="Max: knight, Sam: knight, Carl: knight",
    solution="Suppose Max is a knight.\nMax tells the truth, so Sam is a knight.\nWhat Carl says is true, so Carl is a knight."
    "\nThen everything that was said fits.\n#### Max: knight, Sam: knight, Carl: knight",
    level="3",
    core="3:b4fbb5a020b3dba4fb1cc8e1f277127c",
)
