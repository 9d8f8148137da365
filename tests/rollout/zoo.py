"""Tiny random models of many architectures, made from transformers' own configs."""

from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM, PreTrainedModel

NONE = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
PLAIN = NONE | {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 512,
}
GROUPED = PLAIN | {"num_key_value_heads": 2}
HEADS = GROUPED | {"head_dim": 8}
GPT2 = NONE | {"vocab_size": 64, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 512}
EXPERTS = {"num_experts_per_tok": 2, "num_local_experts": 4}
WINDOW = {"sliding_window": 40}

# by name: its config, and settings
RIGHT: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", GROUPED),
    "qwen2": ("Qwen2Config", GROUPED),
    "qwen3": ("Qwen3Config", HEADS),
    "qwen2 of experts": (
        "Qwen2MoeConfig",
        GROUPED
        | EXPERTS
        | {"num_experts": 4, "moe_intermediate_size": 16, "shared_expert_intermediate_size": 16},
    ),
    "mistral without a window": ("MistralConfig", GROUPED | {"sliding_window": None}),
    "mixtral": ("MixtralConfig", GROUPED | EXPERTS),
    "gemma": ("GemmaConfig", HEADS),
    "phi": ("PhiConfig", PLAIN),
    "granite without scaling": ("GraniteConfig", GROUPED),
    "gpt2": ("GPT2Config", GPT2),
    "gpt-neox": ("GPTNeoXConfig", PLAIN),
    "opt": ("OPTConfig", PLAIN | {"ffn_dim": 48, "word_embed_proj_dim": 32}),
    "olmo2": ("Olmo2Config", GROUPED),
    "smollm3": ("SmolLM3Config", GROUPED),
    "stablelm": ("StableLmConfig", GROUPED),
    "falcon": ("FalconConfig", PLAIN),
    "glm4": ("Glm4Config", HEADS),
    "nemotron": ("NemotronConfig", HEADS),
}
SCALED = {"logits_scaling": 8.0, "attention_multiplier": 0.1}
# the same, and what the refusal says
WRONG: dict[str, tuple[str, dict[str, Any], str]] = {
    "gemma2": ("Gemma2Config", HEADS | WINDOW, "is off by .* nats"),
    "granite": ("GraniteConfig", GROUPED | SCALED, "is off by .* nats"),
    "cohere": ("CohereConfig", GROUPED, "is off by .* nats"),
    "cohere2": ("Cohere2Config", GROUPED | WINDOW, "is off by .* nats"),
    "mistral": ("MistralConfig", GROUPED | WINDOW, "longer than 40 tokens"),
    "mistral of 4,096": (
        "MistralConfig",
        GROUPED | {"sliding_window": 4096},
        "longer than 4,096 tokens",
    ),
    "qwen2 with a window": (
        "Qwen2Config",
        GROUPED | {"use_sliding_window": True, "sliding_window": 4096, "max_window_layers": 1},
        "longer than 4,096 tokens",
    ),
    "llama whose RoPE grows": (
        "LlamaConfig",
        GROUPED | {"rope_parameters": {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 1e4}},
        "longer than 512 tokens",
    ),
    "llama of two RoPEs": (
        "LlamaConfig",
        GROUPED
        | {
            "rope_parameters": {
                "rope_type": "longrope",
                "rope_theta": 1e4,
                "short_factor": [1.0] * 4,
                "long_factor": [8.0] * 4,
                "original_max_position_embeddings": 128,
            }
        },
        "longer than 128 tokens",
    ),
    "gemma3": ("Gemma3TextConfig", HEADS | WINDOW, "longer than 40 tokens"),
    "phi3": ("Phi3Config", GROUPED | WINDOW, "longer than 40 tokens"),
    "starcoder2": ("Starcoder2Config", GROUPED | WINDOW, "longer than 40 tokens"),
    "olmo3": ("Olmo3Config", GROUPED | WINDOW, "longer than 40 tokens"),
    "gpt-oss": ("GptOssConfig", HEADS | EXPERTS | WINDOW, "is off by .* nats"),
    "gpt-neo": (
        "GPTNeoConfig",
        NONE
        | {
            "vocab_size": 64,
            "hidden_size": 32,
            "num_layers": 2,
            "num_heads": 4,
            "window_size": 40,
            "attention_types": [[["global", "local"], 1]],
        },
        "is off by .* nats",
    ),
    "gpt-j": ("GPTJConfig", GPT2 | {"rotary_dim": 4}, "is off by .* nats"),
    "bloom": ("BloomConfig", NONE | {"vocab_size": 64, "hidden_size": 32, "n_head": 4}, "the sampler stops"),
    "mamba": (
        "MambaConfig",
        NONE | {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 8},
        "the sampler stops",
    ),
    "llama4": (
        "Llama4TextConfig",
        HEADS | EXPERTS | {"intermediate_size_mlp": 48, "num_local_experts": 2, "num_hidden_layers": 4},
        "the sampler stops",
    ),
    "lfm2": ("Lfm2Config", GROUPED | {"full_attn_idxs": [1]}, "the sampler stops"),
    "bert": ("BertConfig", PLAIN | {"pad_token_id": 0}, "is not a causal language model"),
}


def make(config: str, settings: dict[str, Any], *, loud: bool) -> PreTrainedModel:
    """With weights as a new model has them, or so large that each matters."""
    made = getattr(transformers, config)(**settings)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model: PreTrainedModel = AutoModelForCausalLM.from_config(made).eval()
        for weight in model.parameters() if loud else ():
            if weight.ndim > 1:
                torch.nn.init.normal_(weight, 0, 0.3)
    return model
