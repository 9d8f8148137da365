"""Trackers get the rows of the table, once each, and no key; what they do wrong costs the step nothing."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from accelerate import tracking
from accelerate.state import PartialState
from fakes import make_step
from pydantic import ConfigDict

from chainforge.config.collector import CollectorSettings
from chainforge.config.run import RuntimeSettings
from chainforge.config.sft import SftSettings
from chainforge.errors import ChainForgeError
from chainforge.project.preflight.trackers import check_trackers
from chainforge.run.step import Step
from chainforge.run.tracked_settings import tracked_settings

SECRET = "a-secret-that-nobody-should-see"


class Fake(tracking.GeneralTracker):  # type: ignore[misc]
    """As accelerate's own, in memory; `breaks` is a method that raises."""

    name = "trackio"
    requires_logging_directory = False
    rows: dict[str, list[tuple[int, dict[str, float]]]]
    configs: list[dict[str, Any]]
    finished: int
    breaks = ""

    def __init__(self, project: str, **options: Any) -> None:
        super().__init__()
        self.run, self.options = options["name"], options

    def call(self, method: str) -> None:
        if method == self.breaks:
            raise RuntimeError(f"no network\x1b[2J for {SECRET}")

    def start(self) -> None:
        self.call("start")

    @property
    def tracker(self) -> object:
        return self

    def store_init_configuration(self, values: dict[str, Any]) -> None:
        self.call("store_init_configuration")
        self.configs.append(values)

    def log(self, values: dict[str, float], step: int | None = None, **_: Any) -> None:
        self.call("log")
        assert step is not None
        self.rows.setdefault(self.run, []).append((step, values))

    def finish(self) -> None:
        self.call("finish")
        type(self).finished += 1


@pytest.fixture(autouse=True)
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> type[Fake]:
    monkeypatch.chdir(tmp_path)
    Path("work").mkdir()
    monkeypatch.delenv("DVC_ROOT", raising=False)
    kind = type("Fake", (Fake,), {"rows": {}, "configs": [], "finished": 0})
    monkeypatch.setitem(tracking.LOGGER_TYPE_TO_CLASS, "trackio", kind)
    monkeypatch.setitem(tracking.LOGGER_TYPE_TO_CLASS, "tensorboard", kind)
    return kind


def train(step: Step, first: int, last: int, saved: str | None = None) -> str:
    """Rows as a loop adds them; one is not a number. Returns what a save would hold."""
    table = step.table(["loss", "eval_loss"], SftSettings(**SETTINGS), Path("work"))
    if saved:
        table.load_state_dict({"rows": saved})
    for number in range(first, last + 1):
        table.add(number, loss=1 / number, eval_loss=float("nan") if number % 2 else 0.1234567)
    step.finish({}, table)
    return table.state_dict()["rows"]


SETTINGS: dict[str, Any] = {
    "output": Path("checkpoints/x"),
    "examples": Path("data/x.jsonl"),
    "start_from": Path("a"),
}


def published() -> list[tuple[int, dict[str, float]]]:
    rows = csv.DictReader(io.StringIO(Path("plots/sft_refine.csv").read_text()))
    return [(int(row.pop("step")), {name: float(cell) for name, cell in row.items() if cell}) for row in rows]


def tracked(**runtime: Any) -> Step:
    return make_step("sft_refine", trackers=["trackio"], **runtime)


def test_a_tracker_gets_exactly_the_rows_of_the_table_and_the_settings(fake: type[Fake]) -> None:
    train(tracked(), 1, 5)
    (rows,) = fake.rows.values()
    assert rows == published()
    assert len(rows) == 5
    (config,) = fake.configs
    assert config["run.seed"] == 17
    assert config["settings.num_epochs"] == SftSettings(**SETTINGS).num_epochs
    assert all(isinstance(value, str | int | float | bool) for value in config.values())
    assert fake.finished == 1


def test_a_run_that_is_killed_and_goes_on_has_each_row_once_in_one_run(fake: type[Fake]) -> None:
    saved = train(tracked(), 1, 3)
    train(tracked(), 4, 6, saved)  # killed here, and its last save is of row 3
    train(tracked(), 4, 8, saved)
    (rows,) = fake.rows.values()
    assert rows == published()
    assert len(rows) == 8
    assert len(fake.configs) == 1


def test_a_step_that_starts_afresh_is_another_run(fake: type[Fake]) -> None:
    train(tracked(), 1, 3)
    Path("work/trackers.json").unlink()
    train(tracked(), 1, 3)
    assert len(fake.rows) == 2


@pytest.mark.parametrize("content", ["", "{", "[]", '{"run": 1}', "\xff"])
def test_a_memory_that_cannot_be_read_begins_another_run(fake: type[Fake], content: str) -> None:
    Path("work/trackers.json").write_text(content, encoding="latin-1")
    train(tracked(), 1, 2)
    assert list(fake.rows.values()) == [published()]


@pytest.mark.parametrize("method", ["start", "store_init_configuration", "log", "finish"])
def test_a_tracker_that_fails_is_named_once_and_the_table_is_whole(
    fake: type[Fake], method: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SOME_API_KEY", SECRET)
    fake.breaks = method
    train(tracked(), 1, 4)
    said = capsys.readouterr().err
    assert said.count("the tracker trackio failed (RuntimeError: no network") == 1
    assert SECRET not in said
    assert "\x1b" not in said
    assert [number for number, _ in published()] == [1, 2, 3, 4]


@pytest.mark.slow
def test_no_key_lands_in_a_tracker(monkeypatch: pytest.MonkeyPatch) -> None:
    class Anything(CollectorSettings):
        model_config = ConfigDict(extra="allow")

    monkeypatch.setenv("JUDGE_API_KEY", SECRET)
    secrets = {
        "header": f"x {SECRET}",
        "deep": {"api_key": "k-123", "url": "https://user:word@host/v1", "list": [f"{SECRET}"]},
        "looks": "sk-" + "a" * 40,
        "api_key_env": "JUDGE_API_KEY",
    }
    found = tracked_settings(settings=Anything(**secrets))
    text = json.dumps(found)
    for secret in (SECRET, "k-123", "user:word", "a" * 40):
        assert secret not in text
    assert found["settings.api_key_env"] == "JUDGE_API_KEY"


def test_accelerate_never_counts_the_processes_nor_sets_threads(
    fake: type[Fake], monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    PartialState._reset_state()
    threads = torch.get_num_threads()
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    from chainforge.run.trackers import begin_accelerate

    begin_accelerate()
    assert PartialState().num_processes == 1
    assert torch.get_num_threads() == threads
    assert not torch.distributed.is_initialized()
    import os

    assert os.environ["WORLD_SIZE"] == "2"


def test_without_trackers_accelerate_is_not_asked_and_nothing_is_written(fake: type[Fake]) -> None:
    train(make_step("sft_refine"), 1, 2)
    assert not fake.rows
    assert not list(Path("work").iterdir())
    assert RuntimeSettings().trackers == []


def test_a_missing_package_is_named_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    from chainforge.project.preflight import trackers

    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    with pytest.raises(ChainForgeError, match=r"wandb is not installed\n.*pip install wandb mlflow"):
        check_trackers(["wandb", "mlflow"])
    with pytest.raises(ChainForgeError, match="twice"):
        check_trackers(["wandb", "wandb"])
    check_trackers([])


def test_tensorboard_reads_back_the_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    monkeypatch.setitem(tracking.LOGGER_TYPE_TO_CLASS, "tensorboard", tracking.TensorBoardTracker)
    step = make_step("sft_refine", trackers=["tensorboard"])
    saved = train(step, 1, 3)
    train(step, 4, 6, saved)
    train(step, 4, 8, saved)
    (folder,) = Path("logs/trackers/tensorboard").iterdir()
    found = events.EventAccumulator(str(folder))
    found.Reload()
    rows = [(event.step, event.value) for event in found.Scalars("loss")]
    assert rows == [(number, pytest.approx(row["loss"])) for number, row in published()]
