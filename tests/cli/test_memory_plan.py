"""Whether a profile fits on a GPU is known before there is one: the true shapes of Qwen2.5, by arithmetic."""

import json
import re
from pathlib import Path

import pytest
from a_project import Run
from transformers import AutoConfig
from tree import PROFILES, ROOT

from chainforge.config.optimizer import OptimizerSettings
from chainforge.config.run import RunSettings, RuntimeSettings
from chainforge.learner.forecast import Sampling, forecast

QWEN = {"model_type": "qwen2", "hidden_act": "silu", "rms_norm_eps": 1e-6, "max_position_embeddings": 32_768}
QWEN |= {"torch_dtype": "bfloat16"}  # as its files are
SMOLLM2 = {"model_type": "llama", "hidden_act": "silu", "rms_norm_eps": 1e-5, "max_position_embeddings": 8192}
SHAPES = {
    "Qwen/Qwen2.5-7B-Instruct": QWEN
    | {"hidden_size": 3584, "num_hidden_layers": 28, "num_attention_heads": 28, "num_key_value_heads": 4}
    | {"intermediate_size": 18_944, "vocab_size": 152_064, "tie_word_embeddings": False},
    "Qwen/Qwen2.5-1.5B-Instruct": QWEN
    | {"hidden_size": 1536, "num_hidden_layers": 28, "num_attention_heads": 12, "num_key_value_heads": 2}
    | {"intermediate_size": 8960, "vocab_size": 151_936, "tie_word_embeddings": True},
    "Qwen/Qwen2.5-0.5B-Instruct": QWEN
    | {"hidden_size": 896, "num_hidden_layers": 24, "num_attention_heads": 14, "num_key_value_heads": 2}
    | {"intermediate_size": 4864, "vocab_size": 151_936, "tie_word_embeddings": True},
    "HuggingFaceTB/SmolLM2-360M-Instruct": SMOLLM2
    | {"hidden_size": 960, "num_hidden_layers": 32, "num_attention_heads": 15, "num_key_value_heads": 5}
    | {"intermediate_size": 2560, "vocab_size": 49_152, "tie_word_embeddings": True},
}
SHAPES |= {name.replace("Qwen/", "inputs/"): shape for name, shape in SHAPES.items()}  # as `make reproduce`
MEANT_FOR = re.compile(r"(one|eight) GPUs? with (\d+) GB")


@pytest.fixture
def configs(project: Path) -> list[str]:
    """The options that give the shapes."""
    options = []
    for number, (name, shape) in enumerate(SHAPES.items()):
        (project / f"{number}.json").write_text(json.dumps(shape))
        options += ["--config", f"{name}={number}.json"]
    return options


@pytest.mark.dearest
@pytest.mark.slow
@pytest.mark.parametrize("profile", [name for name in PROFILES if "qwen" in name])
def test_a_profile_fits_the_gpus_that_its_first_line_names(
    profile: str, run: Run, configs: list[str]
) -> None:
    found = MEANT_FOR.search((ROOT / f"profiles/{profile}.yaml").read_text().partition("\n")[0])
    assert found
    options = ["--gpus", "8" if found[1] == "eight" else "1", "--gpu-gb", found[2]]
    told = run("memory", profile, *options, *configs).stdout
    assert told.count(": fits") == (4 if "gsm8k" in profile else 6)
    assert told.count("makes its model when the step runs") == (2 if "gsm8k" in profile else 0)
    if "7b" in profile:
        assert "Qwen/Qwen2.5-1.5B-Instruct, 1,543,714,304 weights" in told  # the student


@pytest.mark.slow
def test_without_a_name_it_is_about_the_settings_of_the_project(
    run: Run, configs: list[str], project: Path
) -> None:
    """With vLLM on GPUs of its own, the learner's have no keys and values."""
    run("profile", "use", "qwen2.5-1.5b-lora")
    arguments = ["--gpu-gb", "24", *configs]
    assert (
        run("memory", *arguments).stdout.partition("\n")[2]
        == (run("memory", "qwen2.5-1.5b-lora", *arguments).stdout.partition("\n")[2])
    )
    params = project / "params.yaml"
    text = params.read_text()
    assert text.count("    gpus: 0\n") == 1
    text = text.replace("    gpus: 0\n", "    gpus: 1\n").replace("kind: local", "kind: vllm")
    params.write_text(text)
    assert "keys and values" not in run("memory", *arguments).stdout


@pytest.mark.slow
def test_what_does_not_fit_is_said_with_what_to_set(run: Run, configs: list[str]) -> None:
    ended = run("memory", "qwen2.5-7b", *configs, code=1)
    assert "7,615,616,512 weights" in ended.stdout
    first = ended.stdout.partition("at most")[0].splitlines()
    told = dict(line.split() for line in first if len(line.split()) == 2)
    assert (told["weights"], told["gradients"], told["moments"]) == ("30.46", "30.46", "60.92")
    assert (
        "usable: does not fit\n  -> set grpo.kl_coeff to 0; or set adapter to {kind: lora}; or"
        in ended.stdout
    )
    assert "sft_cold_start, grpo_reasoning, sft_refine, grpo_final do not fit\n  -> " in ended.stderr


@pytest.mark.slow
def test_vllm_on_the_same_gpu_takes_its_weights_and_cache_and_the_step_holds_no_copy() -> None:
    shape = SHAPES["Qwen/Qwen2.5-1.5B-Instruct"] | {"num_hidden_layers": 2}
    config = AutoConfig.for_model(**shape)
    run, runtime = RunSettings(precision="bfloat16"), RuntimeSettings()
    settings = OptimizerSettings(learning_rate=1e-6)
    sampling = Sampling(64, 256, by_vllm=True)
    found = forecast(config, settings, run, runtime, memory=80e9, sampling=sampling)
    cache = (
        2 * 2 * 2 * 2 * 128 * 64 * (512 + 256)
    )  # bytes, keys and values, layers, heads, width; rows, tokens
    told = {name: size for name, size in found.sampling.items() if name not in ("weights", "moments")}
    assert told == {"weights of vLLM": 2 * found.training.model.all, "keys and values": cache}
    assert "copy to sample from" not in found.held


def test_a_model_whose_shapes_nobody_knows_is_named(run: Run, project: Path) -> None:
    told = run("memory", "tiny", code=1).stderr
    assert "the shapes of tiny_qwen2 are not known here" in told
    assert "--config tiny_qwen2=FILE" in told
