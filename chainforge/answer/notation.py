r"""One notation for what LaTeX, Markdown and Unicode write in many ways: `\frac{1}{2}`, `½` and `1/2`."""

import re
import unicodedata

DEEP = 3  # braces within braces that are still read; one pass each, so that time stays linear

SIGNS = str.maketrans(
    dict.fromkeys("\u2212\u2013\u2010\u2011\ufe63\uff0d\u207b", "-")
    | dict.fromkeys("\u00d7\u22c5\u00b7\u2217\u2022\u2062", "*")
    | dict.fromkeys("\u00f7\u2044\u2215", "/")
    | dict.fromkeys("\u2018\u2019\u02bc", "'")
    | dict.fromkeys("\u201c\u201d", '"')
    | {
        "\u066b": ".",
        "\u066c": ",",
        "\uff0c": ",",
        "\u3002": ".",
        "\uff0e": ".",
        "\uff05": "%",
        "\uff04": "$",
    }
    | {"\uff1a": ":", "\uff1d": "=", "\uff08": "(", "\uff09": ")", "\u00ba": "°", "\u02da": "°"}
)
RAISED = "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻"
LOWERED = str.maketrans(RAISED, "0123456789+-")
COMMANDS = {
    "times": "*", "cdot": "*", "ast": "*", "div": "/", "pi": "π", "infty": "∞", "pm": "±", "mp": "∓",
    "le": "≤", "leq": "≤", "leqslant": "≤", "ge": "≥", "geq": "≥", "geqslant": "≥", "lt": "<", "gt": ">",
    "ne": "≠", "neq": "≠", "approx": "≈", "sim": "~", "in": "∈", "cup": "∪", "circ": "°", "degree": "°",
    "%": "%", "{": "{", "}": "}", "#": "#", "&": "&", "_": "_", "lbrace": "{", "rbrace": "}",
}  # fmt: skip
COMMAND = re.compile(r"\\([a-zA-Z]+|[%{}#&_])")
LAYOUT = re.compile(
    r"\\(?:left|right|[bB]igg?[lr]?|displaystyle|textstyle|limits|quad|qquad)(?![a-zA-Z])\.?"
    r"|\\[,;:> ]|\\[()\[\]]"
)
WORDING = (
    r"\\(?:text|mathrm|mathbf|mathit|mathsf|textbf|textit|operatorname|mbox|emph|boxed|fbox)\s?\{([^{}]*)\}"
)
BOLD = re.compile(
    r"(?<![\w*])\*\*(?=[^\s*])([^*]+?)(?<=\S)\*\*(?![\w*])|(?<![\w_])__(?=[^\s_])([^_]+)__(?![\w_])"
)
MATHS = re.compile(r"\$(?!\s)([^$\n]+)(?<!\s)\$(?!\d)")  # as in pandoc: two prices in a line are no formula
FRACTION = re.compile(r"\\[dtc]?frac\s?(?:\{([^{}]*)\}|(\d))\s?(?:\{([^{}]*)\}|(\d))")
ROOT = re.compile(r"\\sqrt\s?(?:\{([^{}]*)\}|(\w))|√\s?(?:\(([^()]*)\)|(\w+))")
RAISING = re.compile(r"([\^_])\{([^{}]*)\}")
ATOM = re.compile(r"[\w.√π]+")


def plain_notation(text: str) -> str:
    """The text in one notation, with single blanks and line breaks. It may still hold any character."""
    text = tidy(digits(text.translate(SIGNS)))
    text = (
        BOLD.sub(lambda found: found[1] or found[2], text)
        .replace("`", "")
        .replace("{,}", ",")
        .replace("\\!", "")
    )
    text = LAYOUT.sub(" ", text.replace("\\$", "\ufdd0")).replace("$$", " ")
    text = MATHS.sub(r"\1", text).replace("\ufdd0", "$")
    text = re.sub(r"(?<=[\w)}])(?=\\[dtc]?frac)", " ", text)  # 2\frac{1}{2} is 2 1/2
    for _ in range(DEEP if "\\" in text or "{" in text else 0):
        text = re.sub(WORDING, r" \1 ", text)
        text = RAISING.sub(lambda found: found[1] + atom(found[2]), text)
        text = ROOT.sub(lambda found: "√" + atom(first(found)), text)
        text = FRACTION.sub(fraction, text)
    text = COMMAND.sub(lambda found: COMMANDS.get(found[1], found[0]), text)
    text = ROOT.sub(lambda found: "√" + atom(first(found)), text).replace("^°", "°").replace("^(°)", "°")
    text = re.sub(r"(?<=\w)\*\*(?=[\w(-])| ?\^ ?", "^", tidy(text))
    return re.sub(r"(?<=[\w)]) (?=[π√])", "", text)


def digits(text: str) -> str:
    """Digits of every script as 0 to 9; 5² as 5^2; ½ as 1/2, a blank before it."""
    if text.isascii():
        return text
    text = re.sub(f"[{RAISED}]+", lambda found: "^" + atom(found[0].translate(LOWERED)), text)
    text = re.sub(r"(?![0-9])\d", lambda found: str(unicodedata.decimal(found[0])), text)
    return re.sub(
        "[¼-¾⅐-⅞]", lambda f: f" {unicodedata.normalize('NFKC', f[0])} ".replace("\u2044", "/"), text
    )


def tidy(text: str) -> str:
    """Runs of blanks as one, runs of line breaks too, none at the ends."""
    return re.sub(r" ?\n[ \n]*", "\n", re.sub(r"[^\S\n]+", " ", text)).strip()


def atom(text: str) -> str:
    """In parentheses, unless it needs none."""
    text = text.strip()
    return text if ATOM.fullmatch(text) else f"({text})"


def fraction(found: re.Match[str]) -> str:
    """`-1/2` for a fraction of LaTeX."""
    top, under = (found[1] or found[2] or "").strip(), (found[3] or found[4] or "").strip()
    sign = "-" if top.startswith("-") and ATOM.fullmatch(top[1:]) else ""
    return f"{sign}{atom(top.removeprefix(sign))}/{atom(under)} "


def first(found: re.Match[str]) -> str:
    """The group that matched."""
    return next((group for group in found.groups() if group is not None), "")
