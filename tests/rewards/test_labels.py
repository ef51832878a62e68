"""Names and headings before values, solutions in several unknowns, answers in parts, quantities in words."""

from __future__ import annotations

import pytest

from rewards import verify

SAME = [
    # a ratio or quotient of names is a label
    (r"AB:BC=2:3", r"2:3"),
    (r"AB:BC=2:3", r"4:6"),
    (r"S_{ADE}:S_{ABC}=4:25", r"4:25"),
    (r"5:8", r"m_1:m_2=5:8"),
    (r"\frac{PQ}{QR}=\frac{\sqrt{2}}{3}", r"\frac{\sqrt2}{3}"),
    (r"a/b=7", r"7"),
    (r"u:v=4", r"4"),
    (r"\frac{dy}{dx}=2x", r"2x"),
    (r"\text{boys}:\text{girls}=3:2", r"3:2"),
    (r"AB:BC=2:3", r"AB:BC=2:3"),
    # solutions name by name
    (r"(x,y)=(3,-2)", r"(3,-2)"),
    (r"(x,y)=(3,-2)", r"x=3, y=-2"),
    (r"(x,y)=(3,-2)", r"y=-2, x=3"),
    (r"(3,-2)", r"x=3 \text{ and } y=-2"),
    (r"(3,-2)", r"y=-2, x=3"),
    (r"x=3,y=-2", r"(3,-2)"),
    (r"x=3,y=-2", r"(x,y)=(3,-2)"),
    (r"x=3,y=-2", r"y=-2,x=3"),
    (r"m=4,n=1;m=9,n=5", r"(4,1),(9,5)"),
    (r"m=4,n=1;m=9,n=5", r"(9,5),(4,1)"),
    (r"(4,1),(9,5)", r"m=9,n=5 \text{ or } m=4,n=1"),
    (r"(4,1),(9,5)", r"(m,n)=(4,1),(9,5)"),
    (r"(4,1),(9,5)", r"(m,n)=(4,1) \text{ or } (m,n)=(9,5)"),
    (r"m=4,n=1;m=9,n=5", r"n=5,m=9;n=1,m=4"),
    (r"(r,\theta)=(2,\frac{\pi}{3})", r"r=2, \theta=\frac{\pi}{3}"),
    (r"(2,3),(4,5)", r"(2,3),(4,5),(2,3)"),
    # two units
    (r"5\text{ feet }7\text{ inches}", r"67 \text{ inches}"),
    (r"5 feet 7 inches", r"5 ft 7 in"),
    (r"3 \text{ hours } 20 \text{ minutes}", r"200 \text{ min}"),
    (r"3 \text{ hours and } 30 \text{ minutes}", r"3.5 \text{ hours}"),
    (r"4 \text{ dollars and } 5 \text{ cents}", r"\$4.05"),
    (r"1 \text{ hour } 2 \text{ minutes } 3 \text{ seconds}", r"3723 \text{ seconds}"),
    # numbers in words
    (r"\frac12", r"\text{one half}"),
    (r"\frac12", r"\text{half}"),
    (r"\frac{2}{3}", r"\text{two-thirds}"),
    (r"\frac{3}{4}", r"\text{three quarters}"),
    (r"\text{five eighths}", r"0.625"),
    (r"2.5", r"\text{two and a half}"),
    (r"\text{one-tenth}", r"\frac{1}{10}"),
    (r"19", r"\text{nineteen}"),
    (r"0", r"\text{zero}"),
    # signs that are free of each other
    (r"\pm3\pm5i", r"3+5i,3-5i,-3+5i,-3-5i"),
    (r"3+5i,3-5i,-3+5i,-3-5i", r"\pm 3 \pm 5i"),
    (r"\pm3\pm5i", r"3+5i,-3-5i"),
    # dates and headings
    (r"\text{March 9, 1987}", r"9 March 1987"),
    (r"\text{June 5}", r"\text{June 5th}"),
    (r"5\text{th of June}", r"\text{June } 5"),
    (r"\text{Friday, May 1}", r"\text{May 1}"),
    (r"\{4,9\}", r"\text{Solution set: } \{4,9\}"),
    (r"\text{(D)}", r"\text{Option D}"),
    (r"15", r"\textbf{(B)}\ 15"),
    (r"\textbf{(B) } 15", r"15"),
    (r"\text{(B) }\frac12", r"0.5"),
]
DIFFERENT = [
    (r"AB:BC=2:3", r"3:2"),
    (r"AB:BC=2:3", r"BC:AB=2:3"),
    (r"\frac{PQ}{QR}=2", r"\frac{QR}{PQ}=2"),
    (r"\frac{PQ}{QR}=2", r"\frac12"),
    (r"2x+z=1", r"1"),
    (r"x+y=1", r"1"),
    (r"x-y=4", r"4"),
    (r"xy=6", r"6"),
    (r"\frac{x}{2}=3", r"3"),
    (r"\frac{2}{x}=3", r"3"),
    (r"\frac{x+y}{z}=2", r"2"),
    (r"\frac{x}{y}=y", r"y"),
    (r"(x,y)=(3,-2)", r"(-2,3)"),
    (r"(x,y)=(3,-2)", r"(y,x)=(3,-2)"),
    (r"(x,y)=(3,-2)", r"x=-2, y=3"),
    (r"(x,y)=(3,-2)", r"y=3, x=-2"),
    (r"(3,-2)", r"y=3, x=-2"),
    (r"x=3,y=-2", r"a=3,b=-2"),
    (r"m=4,n=1;m=9,n=5", r"(1,4),(5,9)"),
    (r"m=4,n=1;m=9,n=5", r"(4,9),(1,5)"),
    (r"m=4,n=1;m=9,n=5", r"(4,1)"),
    (r"m=4,n=1;m=9,n=5", r"4,1,9,5"),
    (r"(4,1)", r"m=4,n=1;m=9,n=5"),
    (r"(2,3),(4,5)", r"(2,3),(4,5),(6,7)"),
    (r"(2,3),(4,5)", r"(2,3),(2,3)"),
    (r"5 feet 7 inches", r"5 feet 8 inches"),
    (r"5 feet 7 inches", r"67 \text{ feet}"),
    (r"5 feet 7 inches", r"67"),
    (r"200", r"3 \text{ hours } 20 \text{ minutes}"),
    (r"\frac13", r"\text{third}"),
    (r"\frac12", r"\text{one third}"),
    (r"6", r"\text{five}"),
    (r"\pm3\pm5i", r"3+5i,3-5i"),
    (r"3+5i", r"\pm3\pm5i"),
    (r"\text{March 9, 1987}", r"\text{March 9, 1988}"),
    (r"\text{March 9, 1987}", r"\text{March 9}"),
    (r"\text{March 9}", r"\text{May 9}"),
    (r"\{4,9\}", r"\text{Solution set: } \{4,8\}"),
    (r"\text{(D)}", r"\text{Option B}"),
    (r"15", r"\textbf{(B)}\ 16"),
    (r"\text{(C) }15", r"\text{(B) }15"),
    (r"15", r"\text{(B)}"),
    (r"3", r"\text{(a) }3, \text{(b) }4"),
    (r"(2,15)", r"\text{(B) }15"),
    (r"(a)(b)", r"(a)(c)"),
    (r"(a)(b+1)", r"b+1"),
    (r"(A)(B)", r"(A)(C)"),
    (r"(a)^2", r"(a)^3"),
    (r"(a)+b", r"(a)+c"),
    (r"(a)b", r"(a)c"),
    (r"(a) b", r"(a) c"),
]
BOXES = [
    (r"(2, 3), (0, 1)", r"\boxed{(2, 3)} for part (a) and \boxed{(0, 1)} for part (b)", "correct"),
    (r"u_1=x^2, u_2=x+1", r"$u_1 = \boxed{x^2}$ and $u_2 = \boxed{1+x}$", "correct"),
    (r"\boxed{8} cats and \boxed{3} dogs", r"\boxed{8, 3}", "correct"),
    (r"8,3", r"There are \boxed{8} cats and \boxed{3} dogs.", "correct"),
    (r"(8,3)", r"Hence $x = \boxed{8}$ and $y = \boxed{3}$.", "correct"),
    (r"x=8,y=3", r"Hence $x = \boxed{8}$ and $y = \boxed{3}$.", "correct"),
    (r"3", r"There are \boxed{8} cats and \boxed{3} dogs.", "correct"),
    (r"(8,3)", r"Hence $y = \boxed{8}$ and $x = \boxed{3}$.", "wrong"),
    (r"(8,3)", r"There are \boxed{8} cats and \boxed{3} dogs.", "wrong"),
    (r"x=8,y=3", r"Hence $x = \boxed{3}$ and $y = \boxed{8}$.", "wrong"),
    (r"8,3", r"First we get \boxed{8}. The next number is \boxed{3}.", "wrong"),
    (r"8,3", r"We have \boxed{8} and then \boxed{3}", "wrong"),
    (r"8,3", r"\boxed{8} is wrong, it is \boxed{3}", "wrong"),
    (r"8,3", r"maybe \boxed{8} or perhaps \boxed{3}", "wrong"),
    (r"8,3", r"\boxed{5} birds, \boxed{8} cats and \boxed{3} dogs", "wrong"),
    (r"8,3,1", r"\boxed{8} cats and \boxed{3} dogs", "wrong"),
    (r"8,3", r"\boxed{8} + \boxed{3}", "wrong"),
    (r"8,3", r"$\frac{\boxed{8}}{\boxed{3}}$", "wrong"),
    (r"11", r"\boxed{8} cats and \boxed{3} dogs", "wrong"),
    (r"8", r"There are \boxed{8} cats and \boxed{3} dogs.", "wrong"),
    (r"\boxed{8} cats and \boxed{3} dogs", r"\boxed{3}", "wrong"),
]


@pytest.mark.parametrize(("gold", "prediction"), SAME)
def test_same(gold: str, prediction: str) -> None:
    verdict = verify(rf"\boxed{{{prediction}}}", gold)
    assert verdict.outcome == "correct", verdict


@pytest.mark.parametrize(("gold", "prediction"), DIFFERENT)
def test_different(gold: str, prediction: str) -> None:
    verdict = verify(rf"\boxed{{{prediction}}}", gold)
    assert verdict.outcome == "wrong", verdict


@pytest.mark.parametrize(("gold", "prediction", "outcome"), BOXES)
@pytest.mark.parametrize("mode", ["strict", "lenient"])
def test_answers_in_several_boxes(gold: str, prediction: str, outcome: str, mode) -> None:
    assert verify(prediction, gold, mode).outcome == outcome
