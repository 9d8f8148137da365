"""Prompt source `hub`, and what of the hub the known sets read: from folders, through `datasets`."""

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from loading import load_plugin, registered

import chainforge as cf

pytestmark = [
    pytest.mark.slow,  # for its import
    pytest.mark.skipif(find_spec("datasets") is None, reason="needs datasets"),
]

hub = registered("prompts_hub", "register_prompt_sources")["hub"]
aime = registered("prompts_aime", "register_prompt_sources")["aime"]


@pytest.fixture(autouse=True)
def _cache_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr("datasets.config.HF_DATASETS_OFFLINE", True)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data set as it lies on the hub: a file for each split."""
    folder = tmp_path / "Ten-Sums"
    folder.mkdir()
    for split, start in (("train", 0), ("test", 100)):
        rows = [
            {"q": f"{i} + 1?", "a": f"So {i + 1}.", "level": i % 3, "kind": "odd" if i % 2 else "even"}
            for i in range(start, start + 10)
        ]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def read(data: Path, split: str = "train", n: int = 100, seed: int = 17, **more: Any) -> list[cf.Prompt]:
    settings = {"question": "q", "answer": "a", "answer_pattern": r"So (\d+)"} | more
    return list(hub(split=split, n=n, seed=seed, dataset=str(data), **settings))


def test_columns_are_mapped_and_the_family_and_the_rewards_columns_are_named(data: Path) -> None:
    first = read(data, family="kind", columns=["level"], solution="a", instruction="Be brief.")[0]
    messages = ({"role": "user", "content": "0 + 1?\nBe brief."},)
    columns = {"solution": "So 1.", "level": 0}
    assert first == cf.Prompt("ten_sums-train-000001", "even", messages, "1", columns)


def test_splits_are_those_of_the_data_set_or_parts_of_one(data: Path) -> None:
    assert [prompt.answer for prompt in read(data, "eval")] == [str(i) for i in range(101, 111)]
    halves = {"train": "train[:60%]", "eval": "train[60%:]"}
    train, held_out = (
        {prompt.messages[0]["content"] for prompt in read(data, split, **halves)} for split in halves
    )
    assert (len(train), len(held_out)) == (6, 4)
    assert not train & held_out


def test_fewer_than_all_rows_are_a_seeded_choice_in_order(data: Path) -> None:
    some = [prompt.id for prompt in read(data, n=5)]
    assert some == sorted(set(some)) == [prompt.id for prompt in read(data, n=5)]
    assert len(some) == 5
    assert some != [prompt.id for prompt in read(data, n=5, seed=18)]


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"question": "text"}, r"split train, row 1: there is no field 'text'\n.*has: q, a, level, kind"),
        ({"answer_pattern": r"= (\d)"}, r"split train, row 1: answer_pattern .* finds nothing"),
        ({"answer_pattern": "So"}, "has 0 groups, not one"),
        ({"columns": ["none"]}, "row 1: there is no field 'none'"),
        (
            {"train": "validation"},
            r"Ten-Sums, split validation cannot be loaded: ValueError.*\n.*check its name",
        ),
        ({"dataset": "./nowhere/at-all"}, "data set ./nowhere/at-all, split train cannot be loaded"),
    ],
)
def test_errors_name_data_set_split_and_row(data: Path, settings: dict[str, Any], complaint: str) -> None:
    with pytest.raises(cf.ChainForgeError, match=complaint):
        list(
            hub(
                **{"split": "train", "n": 50, "seed": 1, "dataset": str(data), "question": "q", "answer": "a"}
                | settings
            )
        )


def test_without_the_package_it_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load_plugin("prompts_hub"), "find_spec", lambda name: None)
    with pytest.raises(cf.ChainForgeError, match=r"needs the package datasets\n.*chainforge-r1\[hub\]"):
        hub(split="train", n=1, seed=1, dataset="some/thing")


def test_the_years_of_the_aime_that_are_held_out_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"Question": f"{y}?", "Answer": str(y % 1000), "Year": y} for y in range(2015, 2025)]
    (tmp_path / "all").mkdir()
    (tmp_path / "all/train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.setattr(load_plugin("prompts_aime"), "DATASET", str(tmp_path / "all"))

    def years(split: str, **more: Any) -> list[str | None]:
        return [prompt.answer for prompt in aime(split=split, n=100, seed=1, **more)]

    assert years("eval") == ["24"]
    assert years("train") == [str(year) for year in range(15, 24)]
    assert years("eval", eval_years=[2015, 2020]) == ["15", "20"]
