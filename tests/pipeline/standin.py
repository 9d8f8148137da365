"""What every step of the stand-in graph does: write each of its outputs, made of all its inputs, at once.

The graph, the settings, the lock and the plugins are the real ones; only the work is not. `install` puts
this file into a clone as `stages/standin.py` and lets every stage script call it, with its imports kept
where no interpreter reads them, because the digests of the lock follow them.
"""

import ast
import json
import re
import sys
from pathlib import Path

SPOILT = Path("spoilt")
STAGE = '''"""Stand-in."""
from typing import TYPE_CHECKING

if TYPE_CHECKING:
{imports}

if __name__ == "__main__":
    from stages.standin import main

    main()
'''


def install(folder: Path) -> None:
    """Replace the stage scripts of a clone, but for `lock` and `gate`: they are quick."""
    for script in (folder / "stages").glob("[a-z]*.py"):
        if script.stem not in ("lock", "gate"):
            tree = ast.parse(script.read_text(encoding="utf-8"))
            kept = [ast.unparse(node) for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
            script.write_text(STAGE.format(imports="\n".join(f"    {line}" for line in kept)))
    (folder / "stages/standin.py").write_text(Path(__file__).read_text(encoding="utf-8"))


def main() -> None:
    """`python -m stages.VERB STEP` of the stand-in graph."""
    from chainforge.config.loading import load_settings
    from chainforge.config.verbs import VERBS
    from chainforge.plugins import load_plugins
    from chainforge.project.claims import claim
    from chainforge.project.graph import outputs, param, read_graph
    from chainforge.project.held_inputs import inputs_of

    name = sys.argv[1]
    print("really ran", name)  # noqa: T201
    step = read_graph()[name]
    settings = load_settings(VERBS[step.verb], *step.sections)
    mark = inputs_of(name, settings, load_plugins()).fingerprint
    if name == "report":  # reads more than a training step: its own sections are not all that it watches
        mark += json.dumps([param("checkpoints"), param("evaluate")["reward"]])
    claim(step)
    for path in outputs(step):
        write(path if path.suffix else path / "weights", mark)


def answers(checkpoint: str, mark: str) -> list[dict[str, object]]:
    """An evaluation: every answer is in the format, but for checkpoints that the file SPOILT names."""
    spoilt = checkpoint in (SPOILT.read_text().split() if SPOILT.is_file() else ())
    sample = {"text": mark, "rewards": {"correct": 1.0, "format": float(not spoilt)}}
    asked = [{"prompt_id": f"p{i}", "question": f"{i}?", "answer": "1"} for i in range(40)]
    return [problem | {"samples": [sample], "greedy": None} for problem in asked]


def write(path: Path, mark: str) -> None:
    """A file whose content is the mark, in its own format."""
    path.parent.mkdir(parents=True, exist_ok=True)
    digits = int(re.sub(r"\W", "", mark)[:12], 16)
    text = {".json": json.dumps({"mark": digits}), ".csv": f"step,pass_at_1,checkpoint\n1,{digits},a\n"}
    if path.suffix == ".jsonl" and path.parts[:2] == ("data", "eval"):
        text[".jsonl"] = "\n".join(map(json.dumps, answers(path.parts[2], mark)))
    path.write_text(text.get(path.suffix, json.dumps({"mark": mark})) + "\n")
