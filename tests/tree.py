"""Which files make the project. Nothing else that lies in the folder matters to a test: not the results of a
run, not settings that were edited, not what users added, committed or not."""

import shutil
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path

from chainforge.project.profiles import BASE, use

ROOT = Path(__file__).resolve().parents[1]
TOP = (
    *("CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "Makefile", "README.md"),
    *("dvc.yaml", "pyproject.toml", "setup.py", "requirements.lock", "requirements-dev.lock"),
    *(".dvc/plots/bars_per_bench.json", ".dvc/plots_page.html"),
    *(".dvc/config", ".dvc/.gitignore", ".dvcignore", ".gitattributes", ".gitignore"),
)
CODE = (*(f"chainforge/**/*.{kind}" for kind in ("py", "j2", "js")), "chainforge/py.typed", "stages/*.py")
# Users add to these two folders, so what is bundled goes by name.
PLUGINS = (
    *("model_pretrained", "model_tiny_qwen2", "prompts_aime", "prompts_arithmetic", "prompts_code_tasks"),
    *("prompts_countdown", "prompts_gsm8k", "prompts_hub", "prompts_humaneval", "prompts_instructions"),
    *("prompts_jsonl", "prompts_math", "prompts_procedural", "prompts_reasoning_gym", "prompts_verifiers"),
    *("reward_choice", "reward_code", "reward_correct", "reward_format", "reward_gsm8k"),
    *("reward_instructions", "reward_language", "reward_length", "reward_llm_judge", "reward_math"),
    *("reward_numeric", "reward_overlong"),
    *("reward_repetition", "reward_reward_model", "teacher_anthropic", "teacher_instructions"),
    *("teacher_openai_compatible", "teacher_procedural", "teacher_recorded"),
)
PROFILES = (
    *("tiny", "smoke", "smollm2", "qwen2.5-0.5b", "qwen2.5-1.5b", "qwen2.5-1.5b-lora"),
    "qwen2.5-7b",
    "qwen2.5-7b-lora",
    "qwen2.5-0.5b-gsm8k-lora",
    "qwen2.5-1.5b-gsm8k-lora",
)


def project_files(root: Path = ROOT) -> Iterator[Path]:
    """Every file that the project is made of, as it is now, with the default settings left out."""
    yield from (root / name for name in TOP)
    yield from (path for pattern in CODE for path in sorted(root.glob(pattern)))
    yield from (root / f"plugins/{name}.py" for name in PLUGINS)
    yield from (root / f"profiles/{name}.yaml" for name in PROFILES)


def copy_project(folder: Path, root: Path = ROOT, profile: str = BASE) -> None:
    """These files in another folder, and params.yaml with the settings of a profile."""
    for path in project_files(root):
        copy = folder / path.relative_to(root)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, copy)
    with chdir(folder):
        use(profile)
