"""Materialise the training and evaluation prompts of both sets."""

from pathlib import Path

from chainforge.config.prompts import PromptsSettings
from chainforge.graph import settings_of
from chainforge.inputs import held_inputs
from chainforge.jsonl import write_records
from chainforge.loops.prompts import materialise
from chainforge.plugins import load_plugins, plugin_settings
from chainforge.run.step import open_step, stage_main


def main(name: str) -> None:
    step, settings, plugins = open_step(name), settings_of(PromptsSettings, name), load_plugins()
    with held_inputs(name, settings, plugins):
        written = {}
        for kind, wanted in (("reasoning", settings.reasoning), ("general", settings.general)):
            source = plugins.pick("prompt_sources", wanted.source.plugin)
            options = plugin_settings(source, wanted.source.settings)
            counts = {"train": wanted.train, "eval": wanted.eval}
            sources = {
                split: source.component(split=split, n=count, seed=step.seed(kind), **options)
                for split, count in counts.items()
            }
            for split, prompts in materialise(kind, sources, counts).items():
                written[Path(f"data/prompts/{kind}_{split}.jsonl")] = prompts
        for path, prompts in written.items():
            write_records(path, prompts)


if __name__ == "__main__":
    stage_main(main)
