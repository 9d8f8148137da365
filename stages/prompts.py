"""Materialise the training and evaluation prompts of one set: `prompts@SET`."""

from functools import partial
from pathlib import Path

from chainforge.config.prompts import PromptsSettings
from chainforge.jsonl import write_records
from chainforge.loops.development import development
from chainforge.loops.prompts import materialise
from chainforge.plugins import prompts_from
from chainforge.project.graph import param
from chainforge.project.stage import Run, stage, stage_main
from chainforge.run.seeds import derive


@stage(PromptsSettings)
def main(run: Run[PromptsSettings]) -> None:
    settings, name = run.settings, run.step.name.partition("@")[2]
    source = run.plugins.pick("prompt_sources", settings.source.plugin)
    counts = {"train": settings.train, "eval": settings.eval}
    seed = derive(run.step.settings.seed, "prompts", name)
    ask = partial(prompts_from, source, settings.source.settings, seed=seed)
    sources = {split: ask(split=split, n=count) for split, count in counts.items()}
    splits = materialise(f"prompts.{name}", sources, counts)
    if param("evaluate.split") == "dev":
        more = ask(split=settings.dev_from, n=counts[settings.dev_from] + settings.dev)
        taken = [*splits["train"], *splits["eval"]]
        splits["eval"] = development(f"prompts.{name}", more, settings.dev, taken)
    for split, prompts in splits.items():
        write_records(Path(f"data/prompts/{name}_{split}.jsonl"), prompts)


if __name__ == "__main__":
    stage_main(main)
