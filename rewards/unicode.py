
"""Unicode to the ASCII and LaTeX spelling that the lexer reads."""

from __future__ import annotations

import unicodedata

_LATEX = {
    "×": r"\times ", "·": r"\cdot ", "⋅": r"\cdot ", "∙": r"\cdot ", "•": r"\cdot ", "∗": "*", "÷": r"\div ",
    "±": r"\pm ", "∓": r"\mp ", "°": r"^\circ ", "º": r"^\circ ", "˚": r"^\circ ", "∞": r"\infty ",
    "√": r"\sqrt ", "∛": r"\sqrt[3]", "≤": r"\le ", "≥": r"\ge ", "⩽": r"\le ", "⩾": r"\ge ", "≦": r"\le ",
    "≧": r"\ge ", "≠": r"\ne ", "≈": r"\approx ", "≃": r"\approx ", "≅": r"\cong ", "≡": r"\equiv ",
    "∪": r"\cup ", "∩": r"\cap ", "∈": r"\in ", "∉": r"\notin ", "∅": r"\emptyset ", "∖": r"\setminus ",
    "⊂": r"\subset ", "⊆": r"\subseteq ", "∀": r"\forall ", "∃": r"\exists ", "→": r"\to ", "⇒": r"\implies ",
    "⟨": r"\langle ", "⟩": r"\rangle ", "〈": r"\langle ", "〉": r"\rangle ", "⌊": r"\lfloor ",
    "⌋": r"\rfloor ", "⌈": r"\lceil ", "⌉": r"\rceil ", "∠": r"\angle ", "△": r"\triangle ", "∆": r"\Delta ",
    "∑": r"\sum ", "∏": r"\prod ", "∫": r"\int ", "…": r"\ldots ", "⋯": r"\cdots ", "′": "'", "″": "''",
    "ℝ": r"\mathbb{R}", "ℤ": r"\mathbb{Z}", "ℕ": r"\mathbb{N}", "ℚ": r"\mathbb{Q}", "ℂ": r"\mathbb{C}",
    "−": "-", "–": "-", "‒": "-", "—": "-", "―": "-", "﹣": "-", "－": "-", "⁻": "^-", "˗": "-",
    "‐": "-", "‑": "-",
    "，": ",", "、": ",", "。": ".", "．": ".", "：": ":", "；": ";", "（": "(", "）": ")", "［": "[",
    "］": "]",
    "｛": "{", "｝": "}", "％": "%", "＄": "$", "＝": "=", "＜": "<", "＞": ">", "＋": "+", "／": "/",
    "∕": "/",
    "⁄": "/", "∶": ":", "﹕": ":", "’": "'", "‘": "'", "“": '"', "”": '"', "∣": "|", "¬": r"\neg ",
    "α": r"\alpha ", "β": r"\beta ", "γ": r"\gamma ", "δ": r"\delta ", "ε": r"\epsilon ", "θ": r"\theta ",
    "λ": r"\lambda ", "μ": r"\mu ", "π": r"\pi ", "ρ": r"\rho ", "σ": r"\sigma ", "τ": r"\tau ",
    "φ": r"\phi ", "ϕ": r"\phi ", "ω": r"\omega ", "η": r"\eta ", "ζ": r"\zeta ", "ξ": r"\xi ",
    "ψ": r"\psi ", "χ": r"\chi ", "κ": r"\kappa ", "Δ": r"\Delta ", "Σ": r"\Sigma ", "Ω": r"\Omega ",
    "Π": r"\Pi ", "Γ": r"\Gamma ", "Θ": r"\Theta ", "Λ": r"\Lambda ", "Φ": r"\Phi ", "Ψ": r"\Psi ",
}  # fmt: skip
_SUPERSCRIPTS = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿⁱ", "0123456789+-ni", strict=True))
_SUBSCRIPTS = dict(zip("₀₁₂₃₄₅₆₇₈₉₊₋ₙ", "0123456789+-n", strict=True))
_INVISIBLE = frozenset(
    "\u200b\u200c\u200d\u200e\u200f\u2060\ufeff\u00ad\u202a\u202b\u202c\u2066\u2067\u2068\u2069"
)
OVERRIDES = frozenset("\u202d\u202e")
"""Bidirectional overrides: text holding one may read differently from what it says."""


def _run(text: str, start: int, table: dict[str, str]) -> tuple[str, int]:
    end = start
    while end < len(text) and text[end] in table:
        end += 1
    return "".join(table[c] for c in text[start:end]), end


def to_latex(text: str) -> str:
    """`text` with unicode mathematics spelt in LaTeX, digits of any script as 0-9, no invisible characters.

    Characters with no mathematical reading are kept. ASCII text is returned as it is.
    """
    if text.isascii():
        return text
    out: list[str] = []
    at = 0
    while at < len(text):
        char = text[at]
        if char.isascii():
            out.append(char)
            at += 1
        elif char in _SUPERSCRIPTS:
            run, at = _run(text, at, _SUPERSCRIPTS)
            out.append("^{" + run + "}")
        elif char in _SUBSCRIPTS:
            run, at = _run(text, at, _SUBSCRIPTS)
            out.append("_{" + run + "}")
        else:
            out.append(_single(char))
            at += 1
    return "".join(out)


def _single(char: str) -> str:
    """The LaTeX spelling of one non-ASCII character."""
    if char in _LATEX:
        return _LATEX[char]
    if char in _INVISIBLE:
        return ""
    digit = unicodedata.decimal(char, None)
    if digit is not None:
        return str(digit)
    if unicodedata.category(char) == "Zs":
        return " "
    plain = unicodedata.normalize("NFKC", char)
    if "⁄" in plain:  # a vulgar fraction such as one half
        top, bottom = plain.split("⁄", 1)
        return f"\\frac{{{top}}}{{{bottom}}}"
    return plain if plain.isascii() else char
