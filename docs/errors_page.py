"""Every error that the code can raise, as docs/errors.md: `python docs/errors_page.py > docs/errors.md`.

Read from the syntax trees of the code: nothing is imported, nothing is run.
"""

import ast
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import groupby, product
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HOLE = "…"
# What makes an error out of its arguments, and the two texts that come of them; {0} is the first argument.
MAKERS = {
    "NotFinite": ("{0} is …", "lower the learning rate, or max_grad_norm"),
    "OtherFailed": (
        "rank … failed: …",
        "look for the message of that rank above; run the same command again",
    ),
    "unknown": ("there is no {0} called '…'", "did you mean '…'? known: …"),
    "enough_memory": ("there is not enough memory for {0}", "{1}"),
    "CollectionStopped": (
        "{1}",
        "{0}, then run the same command again: no answer is asked or paid for twice",
    ),
    **dict.fromkeys(("ChainForgeError", "Impossible", "ServerFailed"), ("{0}", "{1}")),
}
WITH_FIX = {"CallFailed": ("{0}", "{1}"), "Stopped": ("{0}", "{1}")}  # others have these names, and no fix
STOPS = ROOT / "chainforge/teachers/stops.py"  # CollectionStopped takes what to do from the table there
AREAS = {  # the others are called as their folders are
    "cli": "Commands",
    "config": "Settings",
    "jsonl": "Files of records",
    "learner": "Training",
    "loops": "The loops of the steps",
    "pretrained": "Models from folders and from the hub",
    "problems": "Prompts and data sets",
    "project": "The graph, the lock and what is checked before a run",
    "providers": "APIs",
    "rollout": "Sampling",
    "run": "Running, stopping and going on",
    "teachers": "Collecting",
}


@dataclass(frozen=True, order=True)
class Problem:
    """One message: what is wrong, what to do, and the file that says it. `…` is what only a run knows."""

    area: str
    problem: str
    fix: str
    path: str


class Module:
    """A file's syntax tree, and the texts that its names stand for."""

    def __init__(self, path: Path) -> None:
        self.tree = ast.parse(path.read_text(encoding="utf-8"))
        self.scopes: dict[ast.AST, dict[str, list[ast.expr]]] = {}
        self._walk(self.tree, assigned(self.tree))

    def _walk(self, node: ast.AST, names: dict[str, list[ast.expr]]) -> None:
        self.scopes[node] = names
        for child in ast.iter_child_nodes(node):
            inner = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)
            self._walk(child, names | assigned(child) if inner else names)

    def texts(self, node: ast.expr, depth: int = 0) -> list[str]:
        """What an expression can say. A name is followed to what was assigned to it, a few steps far."""
        if isinstance(node, ast.Constant):
            return [str(node.value)]
        if isinstance(node, ast.JoinedStr):
            return ["".join(parts) for parts in product(*(self.texts(part, depth) for part in node.values))]
        if isinstance(node, ast.FormattedValue):
            return self.texts(node.value, depth) if isinstance(node.value, ast.IfExp) else [HOLE]
        if isinstance(node, ast.IfExp):
            return self.texts(node.body, depth) + self.texts(node.orelse, depth)
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            both = product(self.texts(node.left, depth), self.texts(node.right, depth))
            return [left + right for left, right in both]
        if isinstance(node, ast.Name) and depth < 3:
            values = self.scopes[node].get(node.id, [])
            return [text for value in values for text in self.texts(value, depth + 1)] or [HOLE]
        return [HOLE]


def assigned(scope: ast.AST) -> dict[str, list[ast.expr]]:
    """What a module or function assigns to plain names."""
    found = defaultdict(list)
    for node in scope.body if isinstance(scope, ast.Module) else ast.walk(scope):
        if isinstance(node, ast.Assign):
            for target in node.targets:
                if isinstance(target, ast.Name):
                    found[target.id].append(node.value)
    return dict(found)


@cache
def problems(root: Path = ROOT) -> list[Problem]:
    """Those of the whole code. An error that only hands on another's text is listed where that is made."""
    found = set()
    for top in ("chainforge", "stages", "plugins"):
        for path in sorted((root / top).rglob("*.py")):
            name = path.relative_to(root).as_posix()
            found |= {Problem(area(name), *both, name) for both in messages(Module(path))}
    return sorted(p for p in found if p.path != "chainforge/errors.py")


def stop_fixes() -> dict[str, str]:
    """What to do about each cause for which a collection stops."""
    nodes = ast.parse(STOPS.read_text(encoding="utf-8")).body
    (table,) = [n.value for n in nodes if isinstance(n, ast.AnnAssign) and ast.unparse(n.target) == "STOPS"]
    return {cause: fix for cause, (_, fix) in ast.literal_eval(table or "{}").items()}


def messages(module: Module) -> Iterator[tuple[str, str]]:
    """Problem and fix of each error that is made in a module."""
    for node in ast.walk(module.tree):
        if not isinstance(node, ast.Call):
            continue
        name = getattr(node.func, "attr", getattr(node.func, "id", ""))
        arguments = [value for value in node.args if not isinstance(value, ast.Starred)]
        patterns = MAKERS.get(name) or (WITH_FIX.get(name) if len(arguments) > 1 else None)
        if not patterns or not arguments:
            continue
        texts = [module.texts(value) for value in arguments[:2]]
        if name == "CollectionStopped":
            texts[0] = [STOP_FIXES.get(cause, HOLE) for cause in texts[0]]
        for values in product(*texts, *[["run the same command again"]] * (2 - len(texts))):
            problem, fix = (one_line(pattern.format(*values)) for pattern in patterns)
            if set(problem) - set(f"{HOLE}:;,. "):
                yield problem, fix


STOP_FIXES = stop_fixes()


def one_line(text: str) -> str:
    """Without line breaks and without runs of holes."""
    text = " ".join(text.split())
    while HOLE * 2 in text:
        text = text.replace(HOLE * 2, HOLE)
    return text


def area(name: str) -> str:
    """Under which title a file's errors stand."""
    top, *rest = Path(name).parts
    if top == "plugins":
        return f"Plugin file {rest[-1]}"
    if top == "stages":
        return "The stage scripts"
    part = rest[0].removesuffix(".py")
    return AREAS.get(part, part.replace("_", " ").capitalize())


def as_code(text: str) -> str:
    """A text as Markdown code, whatever backticks it has."""
    ticks = "``" if "`" in text else "`"
    space = " " if text[:1] == "`" or text[-1:] == "`" else ""
    return f"{ticks}{space}{text}{space}{ticks}"


def page() -> str:
    """The whole page."""
    found = sorted(problems(), key=lambda problem: (problem.area.startswith("Plugin file"), problem))
    lines = [HEAD.format(count=len(found), script=Path(__file__).name)]
    for title, those in groupby(found, key=lambda problem: problem.area):
        lines.append(f"## {title}\n")
        for text, same in groupby(those, key=lambda problem: problem.problem):
            lines += [f"#### {as_code(text)}\n", *(f"- {fix_of(problem)}" for problem in same), ""]
    return "\n".join(lines[:-1]) + "\n"


def fix_of(problem: Problem) -> str:
    """What to do, and where it is said."""
    fix = "What the message says" if problem.fix == HOLE else as_code(problem.fix)
    return f"{fix} ({problem.path})"


HEAD = """\
# Every error message

What ChainForge itself can say, {count} messages, by the part of the code that says them, each with the fix
that it prints after `->`, and the file that says it. `…` stands for what only a run knows: a name, a number,
a path. Search for a few words of your message. Messages of DVC are in
[experiments.md](experiments.md#what-dvcs-message-means); what happens most often is in
[troubleshooting.md](troubleshooting.md).

This page is made from the code by `python docs/{script} > docs/errors.md`.
"""

if __name__ == "__main__":
    sys.stdout.write(page())
