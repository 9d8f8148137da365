"""Whether a profile fits on a GPU is known before there is one: the true shapes of Qwen2.5, by arithmetic."""

import json
from pathlib import Path

import pytest
from a_project import Run
from transformers import AutoConfig

from chainforge.config.optimizer import OptimizerSettings
from chainforge.config.run import RunSettings, RuntimeSettings
from chainforge.learner.forecast import Sampling, forecast

QWEN = {"model_type": "qwen2", "hidden_act": "silu", "rms_norm_eps": 1e-6, "max_position_embeddings": 32_768}
QWEN |= {"torch_dtype": "bfloat16"}  # as its files are
SHAPES = {
    "Qwen/Qwen2.5-7B-Instruct": QWEN
    | {"hidden_size": 3584, "num_hidden_layers": 28, "num_attention_heads": 28, "num_key_value_heads": 4}
    | {"intermediate_size": 18_944, "vocab_size": 152_064, "tie_word_embeddings": False},
    "Qwen/Qwen2.5-1.5B-Instruct": QWEN
    | {"hidden_size": 1536, "num_hidden_layers": 28, "num_attention_heads": 12, "num_key_value_heads": 2}
    | {"intermediate_size": 8960, "vocab_size": 151_936, "tie_word_embeddings": True},
}


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
@pytest.mark.parametrize("arguments", [["qwen2.5-7b", "--gpus", "8"], ["qwen2.5-7b-lora"]], ids=" ".join)
def test_7b_fits_eight_gpus_with_all_weights_and_one_with_an_adapter(
    arguments: list[str], run: Run, configs: list[str]
) -> None:
    told = run("memory", *arguments, *configs).stdout
    assert told.count(": fits") == 6
    assert "does not fit" not in told
    assert "Qwen/Qwen2.5-1.5B-Instruct, 1,543,714,304 weights" in told


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
