"""Materialise the training and evaluation prompts of one set: `prompts@SET`."""

from pathlib import Path

from chainforge.config.prompts import PromptsSettings
from chainforge.jsonl import write_records
from chainforge.loops.prompts import materialise
from chainforge.plugins import prompts_from
from chainforge.project.stage import Run, stage, stage_main
from chainforge.run.seeds import derive


@stage(PromptsSettings)
def main(run: Run[PromptsSettings]) -> None:
    settings, name = run.settings, run.step.name.partition("@")[2]
    source = run.plugins.pick("prompt_sources", settings.source.plugin)
    counts = {"train": settings.train, "eval": settings.eval}
    seed = derive(run.step.settings.seed, "prompts", name)
    sources = {
        split: prompts_from(source, settings.source.settings, split=split, n=count, seed=seed)
        for split, count in counts.items()
    }
    for split, prompts in materialise(f"prompts.{name}", sources, counts).items():
        write_records(Path(f"data/prompts/{name}_{split}.jsonl"), prompts)


if __name__ == "__main__":
    stage_main(main)
