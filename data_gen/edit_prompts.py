"""How a model is asked to put an error into a step, and how its answer is read.

Two forms: an instruction with problem, solution so far and step, each fenced, for models that follow one; and worked
examples of the same error in plain text for small ones, which see the step alone. Both end inside an open fence, so
that the completion is the edited text up to the closing fence.
"""

from __future__ import annotations

from configs.schema import ErrorType, PromptSection
from data_gen.steps import header_length

FENCE = "```"
_SLIPS: dict[ErrorType, str] = {
    "change_value": "one computed value is wrong, as if by a slip in mental arithmetic",
    "change_values": "one computed value is wrong, and every later value that depends on it is carried on from the wrong one",
    "wrong_substitution": "one quantity in a calculation is exchanged for another quantity of the problem",
    "drop_term": "one term of a calculation is left out, and what is left stands as before",
    "change_operator": "one operation sign in a calculation is another one (+, -, *, /)",
    "swap_terms": "two terms of a calculation have changed places",
    "misread": "one word is another one, as if the problem had been read carelessly, so that the statement no longer fits it",
}
_EXAMPLES: dict[ErrorType, tuple[tuple[str, str], ...]] = {
    "change_value": (
        ("The two boxes hold 26 + 17 = 43 nails.", "The two boxes hold 26 + 17 = 33 nails."),
        ("6 * 9 = 54", "6 * 9 = 56"),
        ("So 81 - 35 = 46 seats are empty.", "So 81 - 35 = 44 seats are empty."),
        ("#### 72", "#### 62"),
    ),
    "change_values": (
        ("He paid 4 * 6 = 24, and 24 + 5 = 29.", "He paid 4 * 6 = 28, and 28 + 5 = 33."),
        ("7 + 8 = 15, then 15 * 2 = 30", "7 + 8 = 14, then 14 * 2 = 28"),
        ("That is 50 - 12 = 38. Half of it: 38 / 2 = 19.", "That is 50 - 12 = 36. Half of it: 36 / 2 = 18."),
    ),
    "wrong_substitution": (
        ("The two boxes hold 26 + 17 = 43 nails.", "The two boxes hold 26 + 15 = 43 nails."),
        ("6 * 9 = 54", "6 * 8 = 54"),
        ("So 81 - 35 = 46 seats are empty.", "So 81 - 30 = 46 seats are empty."),
        ("36 / 4 = 9", "36 / 3 = 9"),
    ),
    "drop_term": (
        ("In all 5 + 8 + 6 = 19 guests came.", "In all 5 + 8 = 19 guests came."),
        ("3 * 4 * 2 = 24", "3 * 4 = 24"),
        ("She kept 90 - 20 - 15 = 55 beads.", "She kept 90 - 20 = 55 beads."),
    ),
    "change_operator": (
        ("The two boxes hold 26 + 17 = 43 nails.", "The two boxes hold 26 - 17 = 43 nails."),
        ("6 * 9 = 54", "6 + 9 = 54"),
        ("So 81 - 35 = 46 seats are empty.", "So 81 + 35 = 46 seats are empty."),
        ("36 / 4 = 9", "36 * 4 = 9"),
    ),
    "swap_terms": (
        ("So 81 - 35 = 46 seats are empty.", "So 35 - 81 = 46 seats are empty."),
        ("36 / 4 = 9", "4 / 36 = 9"),
        ("He has 20 - 7 = 13 left.", "He has 7 - 20 = 13 left."),
    ),
    "misread": (
        ("First we count the red ones.", "First we count the blue ones."),
        ("The question asks how many are left.", "The question asks how many are sold."),
        ("Ann has more than Bob.", "Ann has fewer than Bob."),
    ),
}


def instruction(error: ErrorType, question: str, before: str, tail: str) -> str:
    """The request to a model that follows instructions. `tail` is the text to edit."""
    return (
        f"Here are a problem, the beginning of its solution and the next step. Write the next step again with exactly one "
        f"slip in it: {_SLIPS[error]}. Leave everything else as it is: wording, length, line breaks and notation. "
        f"The text must read like an ordinary step; say nothing about the slip.\n\n"
        f"Problem:\n{FENCE}\n{question}\n{FENCE}\n\nSolution so far:\n{FENCE}\n{before.strip() or '(nothing yet)'}\n{FENCE}\n\n"
        f"Next step:\n{FENCE}\n{tail.strip()}\n{FENCE}\n\nAnswer with the new text in a fenced block and nothing else."
    )


def few_shot(error: ErrorType, tail: str) -> str:
    """Worked examples of the error and then the text to edit, up to an open fence; plain text, for small models."""
    parts = [_example(a, b) for a, b in _EXAMPLES[error]]
    return "\n\n".join([f"Copy each step, but with this slip: {_SLIPS[error]}.", *parts, _example(tail.strip(), None)])


def _example(step: str, edited: str | None) -> str:
    done = f"{FENCE}\n" if edited is None else f"{FENCE}\n{edited}\n{FENCE}"
    return f"Step:\n{FENCE}\n{step}\n{FENCE}\nWith the slip:\n{done}"


def prompt_section(form: str, style: PromptSection) -> PromptSection:
    """How the text of a form becomes a prompt: an instruction as a chat where the model has one; examples plain."""
    if form == "instruction":
        return PromptSection(style=style.style, prefill=f"{FENCE}\n")
    return PromptSection(style="plain")


def parse_edit(completion: str) -> str | None:
    """The edited text in a completion that began inside a fence; None without a closing fence or with nothing in it."""
    text = completion
    if text.lstrip().startswith(FENCE):  # the model opened the fence once more
        text = text.lstrip()[len(FENCE) :].partition("\n")[2]
    body, closed, _ = text.partition(FENCE)
    return body.strip() if closed and body.strip() else None


def rejoined(step: str, start: int, tail: str) -> str:
    """The step with its text from `start` on replaced by `tail`, blanks around it as they were.

    A model that repeats the step's header has it taken off: the header stands before the tail.
    """
    old = step[start:]
    lead = old[: len(old) - len(old.lstrip())]
    trail = old[len(old.rstrip()) :]
    if header_length(step):
        tail = tail[header_length(tail) :]
    return step[:start] + lead + tail.strip() + trail
