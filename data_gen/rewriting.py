"""Human solutions in another form: the calculations alone.

GSM8K's solutions are prose with calculator marks (Cobbe et al. 2021, arXiv:2110.14168). A model of a hundred million
parameters has enough to do with the calculations: solutions that consist of these alone are a quarter as long, so that
sampling costs a quarter, and are what such models learn best in the work on chains of thought without words (Deng et al. 2023,
arXiv:2311.01460, whose training texts are the marks). Generated word problems have this form already.
"""

from __future__ import annotations

import re

from data_gen.arithmetic import MARK, PLAIN
from data_gen.problems import gsm8k_answer
from rewards.arithmetic import exact_value

_EQUATION = re.compile(rf"{PLAIN.pattern}={PLAIN.pattern}")
_TOKEN = re.compile(r"\d[\d,]*\.?\d*|\.\d+|[-+*/()]")
_OPERATOR = re.compile(r"[-+*/]")


def equations(solution: str) -> str | None:
    """The marked calculations of a solution, one a line ("48 / 2 = 24"), and `#### ANSWER`; a solution that has this form
    already stays. None where it has no marks, one is not plain arithmetic or does not hold exactly, or the answer is not the
    last result."""
    *steps, end = solution.strip().split("\n")
    if steps and end.startswith("####") and all(_EQUATION.fullmatch(step) for step in steps):
        return solution
    lines: list[str] = []
    last = None
    for mark in MARK.finditer(solution):
        left, equals, right = mark.group(1).partition("=")
        if not equals or not PLAIN.fullmatch(left) or not PLAIN.fullmatch(right):
            return None
        last = exact_value(right.replace(",", ""))
        if last is None or exact_value(left.replace(",", "")) != last:
            return None
        line = f"{_spaced(left)} = {_spaced(right)}"
        if _OPERATOR.search(left.strip().lstrip("-")) and line not in lines:  # "5=5" says nothing
            lines.append(line)
    answer = gsm8k_answer(solution)
    if not lines or answer is None or exact_value(answer) != last:
        return None
    return "\n".join([*lines, f"#### {answer}"])


def _spaced(expression: str) -> str:
    """One form of numbers and signs: spaces around operators, no thousands separators, a digit before each point."""
    text = ""
    for token in _TOKEN.findall(expression):
        if token in "-+*/" and text and (text[-1].isdigit() or text[-1] == ")"):
            text += f" {token} "
        elif token[0].isdigit() or token[0] == ".":
            number = token.replace(",", "").removesuffix(".")
            text += f"0{number}" if number.startswith(".") else number
        else:
            text += token  # a bracket or a sign
    return text
