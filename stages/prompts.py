"""Materialise the training and evaluation prompts of both sets."""

from pathlib import Path

from chainforge.config.prompts import PromptsSettings
from chainforge.jsonl import write_records
from chainforge.loops.prompts import materialise
from chainforge.plugins import prompts_from
from chainforge.project.stage import Run, stage, stage_main


@stage(PromptsSettings)
def main(run: Run[PromptsSettings]) -> None:
    settings = run.settings
    written = {}
    for kind, wanted in (("reasoning", settings.reasoning), ("general", settings.general)):
        source = run.plugins.pick("prompt_sources", wanted.source.plugin)
        counts = {"train": wanted.train, "eval": wanted.eval}
        sources = {
            split: prompts_from(
                source, wanted.source.settings, split=split, n=count, seed=run.step.seed(kind)
            )
            for split, count in counts.items()
        }
        for split, prompts in materialise(kind, sources, counts).items():
            written[Path(f"data/prompts/{kind}_{split}.jsonl")] = prompts
    for path, prompts in written.items():
        write_records(path, prompts)


if __name__ == "__main__":
    stage_main(main)
