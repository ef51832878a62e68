
"""Pairs of answers: the same thing said in two ways, and different things that look alike."""

from __future__ import annotations

import pytest

from rewards import verify
from tests.rewards.pairs import SAME

DIFFERENT = [
    (r"7200", r"7, 200"),
    (r"\frac{1}{3}", r"0.333"),
    (r"\frac{1}{3}", r"0.33"),
    (r"\sqrt{2}", r"1.414"),
    (r"2.5", r"2.51"),
    (r"0.5", r"0.54"),
    (r"3", r"3 1/2"),
    (r"3/2", r"3 1/2"),
    (r"31/2", r"3 1/2"),
    (r"0.28", r"28"),
    (r"28", r"0.28"),
    (r"28\%", r"2.8"),
    (r"80^\circ", r"80\text{ cents}"),
    (r"60 \text{ cm}", r"60 \text{ m}"),
    (r"x=5", r"y=5"),
    (r"2x+z=1", r"1"),
    (r"7 = 11a+c", r"11a+c"),
    (r"y = -2x+1", r"y=-2x-1"),
    (r"x<1", r"x>-1"),
    (r"x \le 5", r"x < 5"),
    (r"[-2,7]", r"(-2,7)"),
    (r"[-2,7]", r"[-2,7)"),
    (r"1,2,3", r"1,2"),
    (r"1,2,3", r"1,2,4"),
    (r"1,1,3", r"1,3"),
    (r"(1,3)", r"(3,1)"),
    (r"(1,3)", r"3,1"),
    (r"\{1,3\}", r"(1,3)"),
    (r"(1,2),(3,4)", r"(2,1),(3,4)"),
    (r"(4,112)", r"4112"),
    (r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}", r"\begin{pmatrix} 1 & 2 \\ 3 & 5 \end{pmatrix}"),
    (r"(a+5)(b+2)", r"(+5)(b+2)"),
    (r"\sqrt{x^2}", r"x"),
    (r"\frac{1}{2^{99}}", r"\frac{1}{2^{98}}"),
    (r"2+3i", r"2-3i"),
    (r"204_5", r"204_6"),
    (r"204_5", r"203_5"),
    (r"3:5", r"5:3"),
    (r"\text{Evelyn}", r"Carla"),
    (r"C", r"(D)"),
    (r"12:00", r"1:00"),
    (r"\pm 7", r"7"),
    (r"f(2)<f(1)<f(4)", r"f(1)<f(2)<f(4)"),
    (r"\sum_{k=1}^{n} k", r"\frac{n(n-1)}{2}"),
    (r"n=2,3,4", r"n=1,2,3"),
    (r"4", r"4\sqrt2"),
    (r"2", r"\frac{1+\sqrt5}{2}"),
    (r"8\!:\!34 \text{ p.m.}", r"8:34 a.m."),
    (r"3x-2", r"3x+2"),
    (r"1,2,\ldots,n", r"1,3,5,\ldots,2n-1"),
    (r"f(4-x)", r"f(x-4)"),
    (r"\text{Yes}", r"no"),
    (r"x+2n+1", r"x+1"),
    (r"1\sqrt{19}", r"1"),
    (r"2^{100000}", r"2^{100000}-2"),
    (r"x^{2025}+1", r"x^{2025}"),
    (r"\frac12", r"\frac12 \text{ or } 0.6"),
    (r"\cos 20^\circ", r"\sin 60^\circ"),
    (r"5 \text{ m/s}", r"5 \text{ km/s}"),
    (r"-\frac{1}{2}", r"\frac{1}{2}"),
    (r"10", r"10!"),
    (r"[1,2]", r"\{1,2\}"),
    (r"(1,2,3)", r"\{1,2,3\}"),
    (r"k \ge 4", r"k > 4"),
    (r"k \ge 4", r"k \ge 5"),
    (r"(2,\infty)", r"[2,\infty)"),
    (r"e^{-1000}", r"0"),
    (r"x^2+y^2=1", r"x^2+y^2=2"),
    (r"(37,3,1),(17,3,2)", r"(37,3,1),(17,2,3)"),
    (r"36\pi", r"113.1"),
    (r"36\pi", r"113"),
    (r"\frac{22}{7}", r"\pi"),
    (r"\frac{22}{7}", r"3.14"),
    (r"3.14", r"3.141"),
    (r"16386.17", r"16386.16"),
    (r"12345678901", r"12345678902"),
    (r"100000000000000000000", r"100000000001000000000"),
    (r"\text{Monday}", r"Tuesday"),
    (r"\text{even}", r"\text{odd}"),
    (r"A", r"B"),
    (r"\text{B,E}", r"B"),
    (r"x(x+1)", r"x^2-x"),
    (r"\begin{pmatrix} 1 \\ 2 \\ 3 \end{pmatrix}", r"(1,3,2)"),
    (r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}", r"\begin{pmatrix} 1 & 3 \\ 2 & 4 \end{pmatrix}"),
    (r"\{1\} \cup [2,3]", r"[2,3]"),
    (r"3x+4y=5", r"3x-4y=5"),
    (r"y \le 2x", r"2x-y \le 0"),
    (r"1101_2", r"13"),
    (r"1101_2", r"1011_2"),
    (r"22.5^{\circ}", r"22"),
    (r"\$32,\!348", r"32,349"),
    (r"\frac{3}{2}", r"1 2"),
    (r"\frac{1}{2^{98}}", r"0"),
    (r"2^{4950}", r"2^{4951}"),
    (r"F_n = \sum_{k=0}^{n-1} F_k F_{n-k-1}", r"F_n = \sum_{k=0}^{n-2} F_k F_{n-k-2}"),
    (r"3,4,5", r"3,4"),
    (r"3,4,5", r"3,4,5,6"),
    (r"3", r"3,4"),
    (r"3", r"3 \text{ or } 4"),
    (r"x=\pm 3", r"3"),
    (r"1234567", r"1,234,576"),
    (r"48 \text{ in}^2", r"48 \text{ ft}^2"),
    (r"a-b", r"b-a"),
    (r"\frac{a}{b}", r"\frac{b}{a}"),
    (r"x^2", r"x^3"),
    (r"x", r"y"),
    (r"2x", r"2"),
    (r"\sqrt{2}", r"2"),
    (r"2\pi", r"2"),
    (r"3i", r"3"),
    (r"\log 2", r"\log 3"),
    (r"\sin x", r"\cos x"),
    (r"\frac{1}{4}", r"25"),
    (r"12.01", r"12"),
    (r"\text{II}", r"III"),
    (r"2 < x \le 5", r"[2,5]"),
    (r"3+4i", r"3-4j"),
    (r"(6+9.1i)", r"6+9.2i"),
    (r"3^x-2^x", r"3^x+2^x"),
    (r"\frac{1}{N+1}", r"1/N+1"),
    (r"\emptyset", r"50\sqrt{3}"),
    (r"\mathbb{R}", r"222"),
    (r"20", r"20\mathbb{R}"),
    (r"(2,3]", r"2,3]"),
    (r"(2,3)", r"(2,3"),
    (r"\frac{16}{25}", r"\det 16"),
    (r"x\in\mathbb{R}, x\neq 0", r"x\neq 1"),
]


@pytest.mark.parametrize(("gold", "prediction"), SAME)
def test_same(gold: str, prediction: str) -> None:
    verdict = verify(rf"\boxed{{{prediction}}}", gold)
    assert verdict.outcome == "correct", verdict


@pytest.mark.parametrize(("gold", "prediction"), DIFFERENT)
def test_different(gold: str, prediction: str) -> None:
    verdict = verify(rf"\boxed{{{prediction}}}", gold)
    assert verdict.outcome == "wrong", verdict


@pytest.mark.parametrize(("gold", "prediction"), SAME)
def test_bare_text_in_lenient_mode(gold: str, prediction: str) -> None:
    assert verify(prediction, gold, "lenient").outcome == "correct"


@pytest.mark.parametrize("answer", sorted({answer for pair in SAME + DIFFERENT for answer in pair}))
def test_reflexive(answer: str) -> None:
    assert verify(rf"\boxed{{{answer}}}", answer).outcome == "correct"
