"""The default run for several seeds, and the table of docs/results.md.

    python benchmarks/seeds.py 17 18 19 [--folder FOLDER] [--only-table]

Each seed is a real `dvc repro` in a copy of this project. One seed takes about as long as `make run`.
"""

import json
import os
import subprocess
import sys
from argparse import ArgumentParser
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BENCHES = ("reasoning", "general")


def main() -> None:
    arguments = ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("seeds", nargs="+", type=int)
    arguments.add_argument("--folder", type=Path, default=ROOT / ".seeds", help="where the runs live")
    arguments.add_argument("--only-table", action="store_true", help="print the table of finished runs")
    given = arguments.parse_args()
    if not given.only_table:
        for seed in given.seeds:
            run(seed, given.folder / str(seed))
    print(table({seed: given.folder / str(seed) for seed in given.seeds}))


def run(seed: int, folder: Path) -> None:
    """Copy what git knows and what it does not ignore, set the seed, and build the whole graph."""
    files = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.splitlines()
    for name in files:
        if (ROOT / name).is_file() and name != "dvc.lock":
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes((ROOT / name).read_bytes())
    params = folder / "params.yaml"
    params.write_text(params.read_text().replace("  seed: 17\n", f"  seed: {seed}\n"))
    bin_folder = str(Path(sys.executable).parent)
    environment = os.environ | {"PATH": f"{bin_folder}:{os.environ['PATH']}", "DVC_NO_ANALYTICS": "1"}
    subprocess.run(
        ["dvc", "config", "--local", "core.no_scm", "true"], cwd=folder, check=True, env=environment
    )
    subprocess.run(["dvc", "repro"], cwd=folder, check=True, env=environment)


def table(folders: dict[int, Path]) -> str:
    """Held-out pass@1 with its 95% interval per checkpoint, and the paired difference to its parent."""
    lines = ["| bench | checkpoint | " + " | ".join(f"seed {seed}" for seed in folders) + " |"]
    lines.append("|---|---|" + "---|" * len(folders))
    stages = {seed: json.loads((f / "reports/stages.json").read_text()) for seed, f in folders.items()}
    paired = {seed: json.loads((f / "reports/paired.json").read_text()) for seed, f in folders.items()}
    first = next(iter(stages.values()))
    for bench in BENCHES:
        for checkpoint in [row["checkpoint"] for row in first if row["bench"] == bench]:
            cells = []
            for seed in folders:
                (row,) = [r for r in stages[seed] if (r["bench"], r["checkpoint"]) == (bench, checkpoint)]
                pairs = [p for p in paired[seed] if (p["bench"], p["checkpoint"]) == (bench, checkpoint)]
                cells.append(cell(row, pairs[0] if pairs else None))
            lines.append(f"| {bench} | `{checkpoint}` | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def cell(row: dict[str, float], pair: dict[str, float] | None) -> str:
    text = f"{row['pass_at_1']:.3f} [{row['ci95_lo']:.3f}, {row['ci95_hi']:.3f}]"
    if pair:
        low, high = 100 * pair["ci95_lo"], 100 * pair["ci95_hi"]
        text += f"<br>{100 * pair['difference']:+.1f} ({low:+.1f}, {high:+.1f})"
    return text


if __name__ == "__main__":
    main()
