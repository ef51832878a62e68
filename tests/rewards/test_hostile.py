
"""Inputs that hang, bloat, crash or take over other graders: a verdict within a second, nothing executed."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from rewards import verify

LARGE_NUMBERS = [
    "5^(5^(5^(5^(5^5))))", r"9^{9^{9^{9^{9}}}}", "2003^{2002^{2001}}", "2**10**10**10", "1000000000!", "99999999!!",
    "((9!)!)!", "9!!!!!!!!!!", r"\binom{10^9}{5\cdot10^8}", "1e999999999", "1e-400", "9" * 5000, "0." + "3" * 1000,
    r"\exp(10^{30})", "e^{e^{e^{e^{e}}}}", r"\sin(10^{10^{10}})", r"\tan(10^{1000})", "(x+1)^{1000000}",
    "(x+y+z)^{500}(a+b)^{400}", "x^{x^{x^{x^{x}}}}", r"\sum_{k=1}^{10^9} k", r"\prod_{k=1}^{1000} k!",
    r"\sum_{i=1}^{900}\sum_{j=1}^{900}\sum_{k=1}^{900} 1", r"\begin{pmatrix}1&2\\3&4\end{pmatrix}^{1000000}",
    "+".join(f"1/{k}!" for k in range(1000, 1100)), "+".join(f"{k}^{{{k * 30}}}" for k in range(100, 200)),
    "+".join(rf"\sqrt{{{k}}}" for k in range(2, 150)), "*".join(f"(x+{k})" for k in range(150)),
]  # fmt: skip
DEEP = [
    "(" * 10_000 + ")" * 10_000, "{" * 10_000 + "}" * 10_000, "[" * 5000, r"\frac{" * 1000 + "1" + "}{2}" * 1000,
    r"\sqrt{" * 500 + "2" + "}" * 500, r"\text{" * 700 + "}" * 700, r"\left(" * 600 + r"\right)" * 600,
    "-" * 4000 + "5", r"\pm" * 500 + "1", "^" * 1000, "_" * 1000, "|" * 3000, "x<" * 300 + "1", "1" + ":1" * 400,
    r"\overline{" * 400 + "}" * 400, r"\cup" * 500, "5" + "+1" * 2000, "1," * 2000 + "1",
    r"\{" + ",".join(map(str, range(900))) + r"\}", "(1,2)" + r"\cup(1,2)" * 300, r"\def\x{\x}\x",
]  # fmt: skip
LONG = [
    "x" * 1_000_000, "a b " * 1000, " " * 100_000 + "y", "\n" * 100_000, "$1$" * 30_000, "**" * 30_000, "$" * 10_000,
    "\\" * 9999, "answer is " * 20_000, "The answer is " + "(" * 5000, "1 " * 50_000, "1," * 100_000, "3/" * 50_000,
    r"\(" * 20_000, r"\[" * 20_000, "answer:" * 30_000, "#### " * 30_000, "<answer>" * 20_000, "</think>" * 20_000,
    r"\frac{1}{" * 20_000, "aaaa " * 200_000, "(a+)+$" * 1000, '"' * 50_000, r"\boxed{" * 100_000,
    r"\boxed{" * 2000 + "}" * 2000, "\U0001f4a5" * 1000,
]  # fmt: skip
SPECIAL = ["nan", "NaN", "inf", "-Infinity", r"\infty", "1/0", "0/0", "0^{-1}", r"\frac{1}{0}", r"\log 0",
           "\x00\x00", "\u202e7\u202c", "\u202d7\u202c", r"\Gamma(10^9)", r"\zeta(1)", "S.One.__class__"]  # fmt: skip


def code(canary: str) -> list[str]:
    return [
        f"__import__('os').system('touch {canary}')",
        f"open('{canary}','w').write('x')",
        f"(lambda: open('{canary}', 'w'))()",
        f"[open('{canary}','w') for _ in [0]]",
        f"globals()['__builtins__']['open']('{canary}','w')",
        f"exec(\"open('{canary}','w')\")",
        f'eval(\'__import__("os").system("touch {canary}")\')',
        f"().__class__.__base__.__subclasses__() and open('{canary}', 'w')",
        rf"\immediate\write18{{touch {canary}}}",
        rf"\input{{|touch {canary}}}",
        f"${{jndi:file://{canary}}}",
        f"$(touch {canary})",
        f"x.__init__.__globals__['os'].system('touch {canary}')",
        "lambda: 0",
        "'a'*10**9",
        "[7]*10**10",
        "factorial(10**9)",
    ]


@pytest.mark.parametrize("text", LARGE_NUMBERS + DEEP + LONG + SPECIAL, ids=lambda text: repr(text[:24]))
def test_a_verdict_within_a_second_and_never_correct(text: str) -> None:
    for gold in ("7", r"\frac{7}{3}", "x^2+7", "(7,3)"):
        for prediction, mode in (
            (rf"\boxed{{{text}}}", "strict"),
            (text, "lenient"),
            (text + " 11", "lenient"),
        ):
            start = time.process_time()
            verdict = verify(prediction, gold, mode)  # type: ignore[arg-type]
            assert time.process_time() - start < 0.5  # CPU time: other jobs may share the machine
            assert verdict.outcome in ("wrong", "no_answer"), verdict
    start = time.process_time()
    assert verify(r"\boxed{7}", text).outcome != "error"
    assert time.process_time() - start < 0.5


def test_nothing_is_executed(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    for text in code(str(canary)):
        for prediction in (
            text,
            rf"\boxed{{{text}}}",
            f"{text} or 0",
            f"The answer is {text}",
            f"#### {text}",
        ):
            gold = "7" if text[0] in "$\\" else "0"
            for mode in ("strict", "lenient"):
                assert verify(prediction, gold, mode).outcome in ("wrong", "no_answer")  # type: ignore[arg-type]
                verify(r"\boxed{0}", text, mode)  # type: ignore[arg-type]
    assert not canary.exists()


def test_digits_of_other_scripts_and_invisible_characters() -> None:
    assert verify("\\boxed{\u0664\u0662}", "42").outcome == "correct"
    assert verify("\\boxed{4\u200b2}", "42").outcome == "correct"
    assert verify("\\boxed{\u202e24}", "42").outcome == "wrong"
    assert verify("\\boxed{\u202e24}", "24").outcome == "wrong"


def test_memory_stays_below_512_mib() -> None:
    script = """
import resource
from rewards import verify
from tests.rewards.test_hostile import DEEP, LARGE_NUMBERS, LONG, SPECIAL
for text in LARGE_NUMBERS + DEEP + LONG + SPECIAL:
    verify("\\\\boxed{" + text + "}", "7")
    verify(text, "x+7", "lenient")
    verify("\\\\boxed{7}", text)
from rewards.pool import default_pool
default_pool().verify("\\\\boxed{\\\\int_0^1 x dx}", "1/2")
default_pool().close()
# VmHWM, not ru_maxrss, which a process inherits from the one that started it (here: pytest, with torch in it).
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=root, capture_output=True, text=True, timeout=120, check=True
    )
    own, workers = (int(kilobytes) for kilobytes in done.stdout.split()[-2:])
    assert own < 512 * 1024
    assert workers < 512 * 1024
