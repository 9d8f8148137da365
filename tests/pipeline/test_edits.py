"""An edit re-runs exactly the steps that use what was edited: `dvc status` after the step `lock`.

A step listed here is one whose own inputs differ; what follows from its new output is test_pipeline's
experiment.
"""

from collections.abc import Callable

import pytest
from clone import Clone, Finished

pytestmark = pytest.mark.slow

CHECKPOINTS = (
    "qwen_sft_ckpt",
    "qwen_rl_ckpt_stage2",
    "qwen_sft_ckpt_stage3",
    "qwen_rl_ckpt_final",
    "qwen_distilled_student",
    "qwen_student_cold_start",
)
GENERAL = {f"evaluate@{name}-general" for name in CHECKPOINTS}
EVALUATE = GENERAL | {f"evaluate@{name}-reasoning" for name in CHECKPOINTS}
GRPO = {"grpo_reasoning", "grpo_final"}
SAMPLE = {"rejection_sampling", "distill_data"}
STUDENTS = {"distill@qwen_distilled_student", "distill@qwen_student_cold_start"}
SFT = {"sft_cold_start", "sft_refine", *STUDENTS}

Edit = Callable[[Clone], None]


def text(path: str, old: str, new: str) -> Edit:
    return lambda clone: clone.edit(path, old, new)


def setting(key: str, value: object) -> Edit:
    return lambda clone: clone.put(key, value)


def unused_plugin(clone: Clone) -> None:
    (clone.folder / "plugins/reward_mine.py").write_text('"""Nobody selects this."""\n')


@pytest.mark.parametrize(
    ("edit", "expected"),
    [
        pytest.param(lambda clone: None, set(), id="nothing"),
        pytest.param(
            text("plugins/reward_format.py", "import chainforge as cf", "import chainforge as cf  # the API"),
            set(),
            id="comment in a plugin",
        ),
        pytest.param(
            text("chainforge/loops/grpo.py", '"""GRPO: sample', '"""Group by group: sample'),
            set(),
            id="docstring in a loop",
        ),
        pytest.param(unused_plugin, set(), id="a plugin that no step selects"),
        pytest.param(setting("runtime.micro_batch_tokens", 4096), set(), id="a setting without a result"),
        pytest.param(
            text("plugins/reward_format.py", "p.reasoning.strip() and", "len(p.reasoning) > 3 and"),
            GRPO | SAMPLE | EVALUATE,
            id="logic of reward format",
        ),
        pytest.param(
            text("plugins/teacher_procedural.py", "import re\n", "import re\nUNUSED = 1\n"),
            {"collect_cot"},
            id="logic of a teacher",
        ),
        pytest.param(
            text("chainforge/loops/grpo.py", "position = (number - 1) *", "position = number *"),
            GRPO,
            id="logic of a loop",
        ),
        pytest.param(
            text("chainforge/models/batches.py", "import torch\n", "import torch\n\nUNUSED = 1\n"),
            SFT | GRPO,
            id="logic that two loops share",
        ),
        pytest.param(setting("sft_cold_start.num_epochs", 3.0), {"sft_cold_start"}, id="one step's setting"),
        pytest.param(setting("sft.weight_decay", 0.2), SFT, id="a verb's setting"),
        pytest.param(
            setting("students.qwen_distilled_student.num_epochs", 2.0),
            {"distill@qwen_distilled_student"},
            id="one student's setting",
        ),
        pytest.param(
            setting("benches.general.prompts", "data/prompts/general_train.jsonl"),
            GENERAL | {"report"},
            id="one bench's setting",
        ),
        pytest.param(setting("report.note", "Mine."), {"report"}, id="the report's setting"),
        pytest.param(
            text("chainforge/report/write.py", "indent=2", "indent=1"), {"report"}, id="logic of the report"
        ),
    ],
)
def test_an_edit_reruns_exactly_the_steps_that_use_it(copy: Clone, edit: Edit, expected: set[str]) -> None:
    edit(copy)
    assert copy.changed() == expected


def test_another_seed_reruns_everything(finished: Finished, copy: Clone) -> None:
    copy.put("run.seed", 18)
    assert copy.changed() == set(finished.steps) - {"lock"}
