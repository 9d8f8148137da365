"""A checkpoint is a plain Hugging Face folder, whole or not there."""

import math
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from fakes import policy, weights
from transformers import AutoModelForCausalLM, AutoTokenizer

from chainforge.config.run import RunSettings, RuntimeSettings
from chainforge.errors import ChainForgeError
from chainforge.models.chat import eos_id
from chainforge.models.checkpoint import Policy, choose_device, load_policy, save_policy, start_torch
from chainforge.outputs import whole_folder, write_json, write_text

CPU = torch.device("cpu")
FILES = {
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
}
CHAT = [{"role": "user", "content": "What is 6 times 7?"}]


def saved(folder: Path, of: Policy | None = None) -> Path:
    save_policy(of or policy(), folder)
    return folder


def logits(of: Policy) -> torch.Tensor:
    ids = of.tokenizer.apply_chat_template(CHAT, add_generation_prompt=True, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        found: torch.Tensor = of.model(ids).logits
    return found


@pytest.mark.parametrize("tied", [True, False])
def test_a_checkpoint_comes_back_the_same(tmp_path: Path, tied: bool) -> None:
    before = policy(tie_word_embeddings=tied)
    after = load_policy(saved(tmp_path / "a", before), CPU)
    assert torch.equal(logits(before), logits(after))
    assert after.tokenizer.get_vocab() == before.tokenizer.get_vocab()
    assert after.tokenizer.chat_template == before.tokenizer.chat_template
    assert eos_id(after.tokenizer) == eos_id(before.tokenizer)
    assert after.num_parameters == before.num_parameters
    assert not after.model.training
    assert all(p.dtype == torch.float32 and p.requires_grad for p in after.model.parameters())


def test_a_checkpoint_is_plain_files_that_transformers_opens_by_itself(tmp_path: Path) -> None:
    folder = saved(tmp_path / "a")
    assert {path.name for path in folder.rglob("*")} == FILES
    model, toy = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    assert torch.equal(logits(Policy(model.eval(), toy)), logits(policy()))


def test_the_same_weights_are_the_same_bytes_however_often_they_are_saved(tmp_path: Path) -> None:
    first = saved(tmp_path / "a", load_policy(saved(tmp_path / "new"), CPU))
    second = saved(tmp_path / "b", load_policy(first, CPU))
    for name in FILES:
        assert (first / name).read_bytes() == (second / name).read_bytes(), name


def without(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def holding(name: str, content: bytes) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes(content) and None


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (
            without("config.json"),
            "is not a model folder: it has no config.json\n  -> run the step that writes",
        ),
        (without("model.safetensors"), "cannot be loaded: .*\n  -> rebuild it with dvc repro --force"),
        (without("tokenizer.json"), "is not a model folder: it has no tokenizer.json\n  -> run the step"),
        (holding("config.json", b"{"), "cannot be loaded: .*\n  -> rebuild it"),
        (holding("config.json", b'{"model_type": "no_such"}'), "cannot be loaded: .*\n  -> rebuild it"),
        (holding("model.safetensors", b"\0" * 100), "cannot be loaded: .*\n  -> rebuild it"),
        (holding("model.safetensors", b""), "cannot be loaded: .*\n  -> rebuild it"),
        (holding("tokenizer.json", b"{}"), "cannot be loaded: .*\n  -> rebuild it"),
    ],
)
def test_a_folder_that_is_no_model_is_an_error_that_names_it(
    tmp_path: Path, damage: Callable[[Path], None], complaint: str
) -> None:
    folder = saved(tmp_path / "a")
    damage(folder)
    with pytest.raises(ChainForgeError, match=complaint) as caught:
        load_policy(folder, CPU)
    assert caught.value.problem.startswith(f"{folder} ")
    assert len(str(caught.value).splitlines()) == 2


def test_a_file_or_nothing_at_all_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for name in ("file", "nowhere"):
        with pytest.raises(ChainForgeError, match=f"{name} is not a model folder"):
            load_policy(tmp_path / name, CPU)


def test_weights_that_are_not_numbers_are_never_saved(tmp_path: Path) -> None:
    broken = policy()
    with torch.no_grad():
        next(broken.model.parameters())[0, 0] = math.nan
    with pytest.raises(ChainForgeError, match=r"embed_tokens\.weight has a weight that is not finite"):
        save_policy(broken, tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_a_folder_appears_whole(tmp_path: Path) -> None:
    path = tmp_path / "deep/model"
    with whole_folder(path) as folder:
        (folder / "a").write_text("1")
        assert not path.exists()
    assert (path / "a").read_text() == "1"
    with whole_folder(path) as folder:
        assert not list(folder.iterdir())
        (folder / "b").write_text("2")
        assert (path / "a").exists()
    assert [file.name for file in path.iterdir()] == ["b"]
    assert [entry.name for entry in path.parent.iterdir()] == ["model"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit, OSError])
@pytest.mark.parametrize("existing", [True, False])
def test_an_interruption_leaves_the_old_folder_and_nothing_else(
    tmp_path: Path, error: type[BaseException], existing: bool
) -> None:
    path = tmp_path / "model"
    if existing:
        path.mkdir()
        (path / "a").write_text("old")

    def half() -> None:
        with whole_folder(path) as folder:
            (folder / "a").write_text("half")
            raise error

    with pytest.raises(error):
        half()
    assert [entry.name for entry in tmp_path.iterdir()] == (["model"] if existing else [])
    assert not existing or (path / "a").read_text() == "old"


def test_what_a_killed_run_left_behind_is_cleared_away(tmp_path: Path) -> None:
    killed = tmp_path / ".model.chainforge-999999999-0123abcd.partial"  # no process has that number
    killed.mkdir()
    (killed / "leftover").write_text("x")
    with whole_folder(tmp_path / "model") as folder:
        (folder / "a").write_text("1")
    assert sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*")) == ["model", "model/a"]


def test_a_small_file_is_written_whole_and_with_stable_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "deep/metrics.json"
    write_json(path, {"b": 1.0, "a": None})
    assert path.read_text() == '{\n  "a": null,\n  "b": 1.0\n}\n'
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"a": math.nan})

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_text(path, "half")
    assert path.read_text().startswith('{\n  "a": null')
    assert [file.name for file in path.parent.iterdir()] == ["metrics.json"]


def test_the_device_is_the_one_asked_for_or_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    for cuda, mps, wanted in ((True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda here=cuda: here)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda here=mps: here)
        assert choose_device("auto").type == wanted
        assert choose_device("cpu").type == "cpu"
    with pytest.raises(
        ChainForgeError, match=r"there is no cuda device on this machine\n  -> set runtime.device"
    ):
        choose_device("cuda")


def test_starting_torch_fixes_threads_and_algorithms() -> None:
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    try:
        device = start_torch(RunSettings(threads=1), RuntimeSettings(device="cpu"))
        assert (device.type, torch.get_num_threads()) == ("cpu", 1)
        assert torch.are_deterministic_algorithms_enabled()
        assert weights(policy())
    finally:
        torch.set_num_threads(before[0])
        torch.use_deterministic_algorithms(before[1])
