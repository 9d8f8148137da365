"""One GRPO step passes through few files, and docs/grpo-step.md names each of them."""

import re
from pathlib import Path

import pytest
from fakes import learner_of, make_step, policy, prompt
from passed_files import passed_files
from tree import ROOT

from chainforge.config.grpo import GrpoSettings
from chainforge.loops.grpo.prompt_mix import PromptMix
from chainforge.loops.grpo.train import train
from chainforge.plugins import load_plugins
from chainforge.rollout.local_engine import LocalEngine
from chainforge.run.work import Work
from chainforge.wiring import make_scorer

OF_THE_STEP = ("loops/", "learner/", "models/", "rollout/")
PAGE = ROOT / "docs/grpo-step.md"


@pytest.fixture(scope="module")
def passed(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The files of a step with the bundled rewards, a KL and both halves of the update's work."""
    step, found = make_step(), set[str]()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("step"))
        settings = GrpoSettings(
            output=Path("out"),
            start_from=Path("in"),
            prompts=Path("prompts"),
            rewards={"correct": 1.0, "format": 0.2},
            num_rl_steps=1,
            prompts_per_step=2,
            group_size=4,
            max_new_tokens=16,
            kl_coeff=0.01,
        )
        toy, mix = policy(), PromptMix([prompt(n) for n in range(8)], [], 0.0, 17)
        learner = learner_of(toy, settings, step, policy())
        scorer = make_scorer(load_plugins(ROOT / "plugins"), settings.rewards, step)
        engine = LocalEngine(toy, step)
        with passed_files(found):
            train(learner, engine, scorer, mix, settings, step, Work())
    return found


def test_a_step_passes_through_few_files(passed: set[str]) -> None:
    assert {"loops/grpo/train.py", "learner/local_learner.py", "rollout/sampler.py"} <= passed
    assert len([file for file in passed if file.startswith(OF_THE_STEP)]) <= 29


def test_the_page_names_each_of_them_and_no_other(passed: set[str]) -> None:
    named = set(re.findall(r"\.\./chainforge/([\w/]+\.py)", PAGE.read_text(encoding="utf-8")))
    assert {file for file in passed if file.startswith(OF_THE_STEP)} <= named
    assert all((ROOT / "chainforge" / file).is_file() for file in named)


def test_the_lines_that_the_page_shows_are_those_of_the_loop() -> None:
    loop = (line.strip() for line in (ROOT / "chainforge/loops/grpo/train.py").read_text().splitlines())
    block = re.search(r"<!-- LOOP -->\n```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert block
    assert all(line in loop for line in block[1].splitlines())  # `in` goes on where it stopped: in this order
