
"""Where the answer is found in a prediction, and what is made of several candidates."""

from __future__ import annotations

import pytest

from rewards import extract, verify

STRICT = [
    (r"So \boxed{5} then \boxed{7}.", "7", "correct"),
    (r"So \boxed{5} then \boxed{7}.", "5", "wrong"),
    (r"\boxed{\frac{1}{2}}.", "1/2", "correct"),
    (r"\fbox{12}", "12", "correct"),
    (r"\boxed 7", "7", "correct"),
    (r"\boxed{ 7 }", "7", "correct"),
    (r"Put it in \boxed{} please. \boxed{42}", "42", "correct"),
    (r"\boxed{42} and I used \boxed as asked.", "42", "correct"),
    ("The answer is 42", "42", "no_answer"),
    ("#### 42", "42", "correct"),
    ("so 3+4=7\n#### 7\n", "7", "correct"),
    ("#### 1,234", "1234", "correct"),
    ("#### $18", "18", "correct"),
    ("#### 18 dollars", "18", "correct"),
    (r"<think> \boxed{41} hmm </think> So \boxed{42}", "42", "correct"),
    (r"\boxed{42} <|im_end|> <|im_start|>user more \boxed{43}", "42", "correct"),
    (r"\boxed{-2} \quad \text{and} \quad \boxed{1}", "1,-2", "correct"),
    (r"\boxed{-2}, \boxed{1}", "1,-2", "correct"),
    (r"\boxed{-2} and \boxed{1}", r"\{1,-2\}", "correct"),
    (r"\boxed{41} or \boxed{42}", "42", "wrong"),
    (r"\boxed{41 \text{ or } 42}", "42", "wrong"),
    (r"\boxed{41}\boxed{42}\boxed{43}", "42", "wrong"),
    (" ".join([r"\boxed{9}"] * 400) + r" \boxed{42}", "42", "correct"),
    (r"\boxed{12 $ and $13 }", r"12\text{ and }13", "correct"),
    (r"\beginboxed{8\sqrt{6}}", r"8\sqrt{6}", "correct"),
    (r"$\boxed{28}$ pct", r"28\%", "correct"),
    (r"\boxed{28 pct}", r"28\%", "correct"),
    (r"\boxed{\boxed{5}}", "5", "correct"),
    (r"\boxed{\text{The answer is } 5}", "5", "correct"),
    (r"\boxed{x = 5}", "5", "correct"),
    (r"\boxed{\text{(C)}}", r"\text{C}", "correct"),
    (
        "\\boxed{\n\\begin{pmatrix} 0 & 3 \\\\ 0 & -1 \\end{pmatrix}\n}.",
        r"\begin{pmatrix} 0 & 3 \\ 0 & -1 \end{pmatrix}",
        "correct",
    ),
    (r"\boxed{42", "42", "no_answer"),
    (r"so $\\boxed{\\left( 3, \\frac{\\pi}{2} \\right)}.$", r"(3,\frac{\pi}{2})", "correct"),
    (r"x=1 \\\boxed{5}", "5", "correct"),
    ("\x08oxed{7}", "7", "correct"),
    (r"\boxed{41} wait \boxed{42", "41", "correct"),
    (r"$k \in \boxed{[-36,104]}.$", "[-36,104]", "correct"),
]

LENIENT = [
    ("The result is 5. Then we add 2 and get 7.", "7", "correct"),
    ("The answer is not 5, it is 6.", "6", "correct"),
    ("In total there are twenty-one ways. The answer is twenty-one.", "21", "correct"),
    ("The answer is 4 4/9.", "40/9", "correct"),
    ("The answer is 42 because geometry proves it", "42", "correct"),
    ("42 because geometry proves it", "42", "correct"),
    ("First compute 6*7.\n42", "42", "correct"),
    ("Final answer: 42", "42", "correct"),
    ("**Final Answer:** 42", "42", "correct"),
    ("**Final Answer**\n\n42", "42", "correct"),
    (r"Final Answer: The final answer is $28 \%$. I hope it is correct.", "28", "correct"),
    ("Final Answer: The largest $n$ is 34.", "34", "correct"),
    ("Final Answer: The volume of $ABCDEFGH$ is 120. I hope it is correct.", "120", "correct"),
    ("The final answer is $(0, 1)$. I hope it is correct.", "[0,1)", "wrong"),
    ("The final answer is 12,000,023. I hope it is correct.", "12000023", "correct"),
    (r"Therefore $x \geq 5$ is the solution.", "x>=5", "correct"),
    (r"We find that $x \lt 3$.", "x<3", "correct"),
    (r"Answer \[ 9 \]", "9", "correct"),
    ("Answer $$ 9 $$", "9", "correct"),
    (r"Answer \( (9+1) \)", "10", "correct"),
    (
        r"The identity is $\begin{pmatrix}1 & 0 \\ 0 & 1\end{pmatrix}$.",
        r"\begin{pmatrix}1&0\\0&1\end{pmatrix}",
        "correct",
    ),
    ("the number is not 10 which is 1,000.99€", "1000.99", "correct"),
    ("so the number is 10 which is 1,000.99m²", "1000.99", "correct"),
    ("Soucis : 2,74 $ a..", "2.74", "correct"),
    ("AZYUK2A", "2", "no_answer"),
    ("So the probability that Alice wins is 2/3. <|im_start|>user", "2/3", "correct"),
    (
        "Therefore, there are 12 distinct sequences that meet the conditions. I hope it is correct.",
        "12",
        "correct",
    ),
    (
        r"We get $\frac{70}{9}$, approximately $7.78 for her fudge. Final Answer: The final answer is 7.78.",
        "7.78",
        "correct",
    ),
    ("A: 72", "72", "correct"),
    ("... so 8+9=17.\nA: 17", "17", "correct"),
    ("因此答案是5。", "5", "correct"),
    (r"所以，答案为：$\frac{1}{2}$。", "0.5", "correct"),
    ("答案：12", "12", "correct"),
    ("The answer is **73**.", "73", "correct"),
    ("So we get **73**", "73", "correct"),
    ("<answer>5</answer>", "5", "correct"),
    (r"<think>maybe 4</think><answer> \frac{1}{2} </answer>", "0.5", "correct"),
    ("The answer is (C).", "C", "correct"),
    ("Answer: C", "C", "correct"),
    ("Answer: C) 12", "C", "correct"),
    ("The correct answer is B. 15", "B", "correct"),
    (r"the interval between -2 and 7. \[ [-2, 7] \]", "[-2,7]", "correct"),
    ("The perimeter is 7", "42", "wrong"),
    ("odd $n$", "odd $n$", "correct"),
    ("So x = 3 or x = -1/2", "3, -1/2", "correct"),
    ("The answer is 3 and -1/2.", "3, -1/2", "correct"),
    (r"The answers are $3$ and $-\frac12$.", "3, -1/2", "correct"),
    ("The answer is $x = 5$.", "5", "correct"),
    ("Thus, the total is $1,234.", "1234", "correct"),
    ("She has 5 + 3 = 8 apples left.", "8", "correct"),
    ("It is -7", "-7", "correct"),
    ("So 3-7 = -4.", "-4", "correct"),
    (r"The total cost is \$18.50.", "18.5", "correct"),
    ("The answer is 18%", r"18\%", "correct"),
    ("The answer is 12 cm^2.", "12", "correct"),
    ("The answer is 3:4.", "3:4", "correct"),
    ("Answer: 1/2\n\nLet me know if you need more help with 3 other things!", "1/2", "correct"),
    (r"The result is $\sqrt{2}$.", r"\sqrt2", "correct"),
    (r"The final result is \frac{1}{2}", "0.5", "correct"),
    ("", "5", "no_answer"),
    ("I do not know.", "5", "no_answer"),
    ("The answer is Evelyn.", r"\text{Evelyn}", "correct"),
    (
        r"Thus $\boxed{255}$. Later we add. Final Answer: The final answer is $10,455$. I hope it is correct.",
        "10455",
        "correct",
    ),
    ("__import__('os').system('x') or 0", "0", "no_answer"),
    ("$-2-i$", "-2-i", "correct"),
    (r"The answer is $$\frac{3}{4}$$", "3/4", "correct"),
    ("Hence the value is $x=2$, $y=3$, so the sum is $5$.", "5", "correct"),
    ("Answer:\n\n$$\n\\frac{3}{4}\n$$", "3/4", "correct"),
    ("The answer is 5, which is prime.", "5", "correct"),
    ("The answer is: 5.0", "5", "correct"),
    ("the answer is 1, 2, and 3.", "1,2,3", "correct"),
    ("The answer is $1,2,3$", "1,2,3", "correct"),
    ("The answer is approximately 3.14", "3.14", "correct"),
    ("The answer is about $3.50 per hour.", "3.5", "correct"),
    ("My answer is 25 miles per hour.", "25", "correct"),
    ("The answer is 2 hours and 30 minutes", "150", "wrong"),
    ("The answer should be 16.", "16", "correct"),
    ("The answer to the question is 16.", "16", "correct"),
    ("The final answer is therefore 16.", "16", "correct"),
    ("x = 16", "16", "correct"),
    ("Therefore, x = 16.", "16", "correct"),
    ("ANSWER: 16", "16", "correct"),
    ("Ans. 16", "16", "correct"),
    (r"The answer: $\boxed{16}$", "16", "correct"),
    ("#### 16", "16", "correct"),
    ("**16**", "16", "correct"),
    (r"The answer is \(\frac{16}{3}\).", "16/3", "correct"),
    ("Janet makes $18 every day at the market.", "18", "correct"),
    ("He needs 12,345 bricks, i.e. 12345.", "12345", "correct"),
    (r"The answer is $\{1,2\}$.", r"\{2,1\}", "correct"),
    ("Step 1: 5. Step 2: 6. Final: 30", "30", "correct"),
    ("So the final answer is:\n\n30\n", "30", "correct"),
    (r"The solution set is $(-\infty, 3) \cup (5, \infty)$.", r"(-\infty,3)\cup(5,\infty)", "correct"),
    ("The answer is 10^5", "100000", "correct"),
    ("The answer is 7 (seven).", "7", "correct"),
    ("The answer is seven.", "7", "correct"),
    ("Total: 70,000 dollars", "70000", "correct"),
    ("The profit was $70,000", "70000", "correct"),
    (r"the answer is -\frac{1}{2}", "-0.5", "correct"),
    ("The answer is 3 hours and 20 minutes", "200 minutes", "correct"),
    ("April 2, 2019", "2 April 2019", "correct"),
    ("一共有25个苹果。", "25", "correct"),
    ("比例为3/7", r"\frac37", "correct"),
    ("المجموع هو **48**.", "48", "correct"),
    ("कुल 31 किताबें हैं।", "31", "correct"),
    ("The answer is for sure C, because A and B fail", "C", "correct"),
    ("The answer: E, it cannot be A", "E", "correct"),
    ("The correct option is (B).", "B", "correct"),
    ("So option D is correct.", "D", "correct"),
    ("The answer isn't 8. It is 9.", "9", "correct"),
    ("The chance is 3/7, or about 0.4286.", "3/7", "correct"),
    ("The line is y = 2x + 7.", "2x+7", "correct"),
    ("故选B", "B", "correct"),
    ("Yes, it does.", "yes", "correct"),
    ("Yes, it does.", "no", "wrong"),
    ("The limit does not exist", "does not exist", "no_answer"),
    ("does not exist", "DNE", "correct"),
    ("9:00 AM", "9 a.m.", "correct"),
    ("9", "9 km/h", "correct"),
    ("We have $y = 77$, so $x = 96$.", "96", "correct"),
    ("Here y = 77, so x = 96.", "96", "correct"),
    ("#### The number asked for is the answer: 10.", "10", "correct"),
    ("B: 12", "B", "correct"),
    ("B: 12", "12", "correct"),
    ("A fails, so I choose B", "B", "correct"),
    ("A fails, so I choose B", "A", "wrong"),
    (r"$-1 \\le x \\le 4$", r"x \in [-1,4]", "correct"),
]


@pytest.mark.parametrize(("prediction", "gold", "outcome"), STRICT)
def test_strict(prediction: str, gold: str, outcome: str) -> None:
    assert verify(prediction, gold).outcome == outcome


@pytest.mark.parametrize(("prediction", "gold", "outcome"), LENIENT)
def test_lenient(prediction: str, gold: str, outcome: str) -> None:
    assert verify(prediction, gold, "lenient").outcome == outcome


@pytest.mark.parametrize(
    ("prediction", "gold", "outcome"), [case for case in LENIENT if "####" not in case[0]]
)
def test_strict_needs_a_box(prediction: str, gold: str, outcome: str) -> None:
    assert "boxed" in prediction or verify(prediction, gold).outcome == "no_answer"


def test_a_long_prediction_is_searched_from_its_end() -> None:
    assert extract("reasoning " * 50_000 + r"\boxed{42}") == "42"


def test_gold_may_be_a_solution_text() -> None:
    assert verify(r"\boxed{72}", "3 * 24 = 72\n#### 72").outcome == "correct"
    assert verify(r"\boxed{\frac12}", r"We get $x = \boxed{\frac{1}{2}}$.").outcome == "correct"
    assert verify(r"\boxed{9}", "Half of $18$ is left. The final answer is $9$. I hope it is correct.").outcome == "correct"
    assert verify(r"\boxed{18}", "Half of $18$ is left. The final answer is $9$. I hope it is correct.").outcome == "wrong"
    assert verify(r"\boxed{2, 1}", r"$\boxed{1}$ and $\boxed{2}$").outcome == "correct"


@pytest.mark.parametrize("gold", ["", "  ", "$$", ".", r"\boxed{}", "####"])
def test_an_empty_gold_is_not_the_predictions_fault(gold: str) -> None:
    assert verify(r"\boxed{5}", gold).outcome == "bad_gold"


def test_numbers_as_gold() -> None:
    assert verify(r"\boxed{0}", 0).outcome == "correct"  # type: ignore[arg-type]
    assert verify(r"\boxed{5}", None).outcome == "error"  # type: ignore[arg-type]
