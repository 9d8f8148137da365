"""Steps that import no torch: they copy what they wrote in another clone.

With another `grpo.kl_coeff` than that one had, other problems are solved, one per hundredth. `install` puts a
program called `python` before all others, which does this for two verbs. Code and settings stay as they are,
and so do all digests of them.
"""

import json
import shutil
import sys
from pathlib import Path

VERBS = ("grpo", "evaluate")
PROGRAM = """#!/bin/sh
case "$2" in {patterns}) exec {python} {replay} {clone} "$@";; esac
exec {python} "$@"
"""


def install(clone: Path, folder: Path) -> None:
    """A folder for PATH."""
    patterns = "|".join(f"stages.{verb}" for verb in VERBS)
    program = PROGRAM.format(patterns=patterns, python=sys.executable, replay=__file__, clone=clone)
    folder.mkdir()
    (folder / "python").write_text(program)
    (folder / "python").chmod(0o755)


def main(clone: Path, step: str) -> None:
    from ruamel.yaml import YAML

    yaml = YAML(typ="safe", pure=True)
    outs = yaml.load((clone / "dvc.lock").read_text(encoding="utf-8"))["stages"][step]["outs"]
    solved = round(100 * yaml.load(Path("params.yaml").read_text(encoding="utf-8"))["grpo"]["kl_coeff"]) - 1
    for out in map(Path, (out["path"] for out in outs)):
        out.parent.mkdir(parents=True, exist_ok=True)
        if (clone / out).is_dir():
            shutil.copytree(clone / out, out)
            config = json.loads((out / "config.json").read_text(encoding="utf-8"))
            (out / "config.json").write_text(json.dumps(config | {"replayed": solved}))
        else:
            text = (clone / out).read_text(encoding="utf-8")
            out.write_text(solve(text, solved) if out.suffix == ".jsonl" else text, encoding="utf-8")


def solve(rows: str, solved: int) -> str:
    """The first problems with right answers."""
    made = []
    for number, row in enumerate(map(json.loads, rows.splitlines())):
        for answer in row["samples"] if number < solved else ():
            answer["rewards"]["correct"] = 1.0
        made.append(json.dumps(row, ensure_ascii=False) + "\n")
    return "".join(made)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[4])
