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
LLAMA_3 = {
    "rope_type": "llama3",
    "rope_theta": 5e5,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
}
LONG = {"rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0] * 4, "long_factor": [8.0] * 4}

# By name: its config, and settings. Sizes are small; what changes how it is computed is as published.
RIGHT: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", GROUPED),
    "llama 3": (
        "LlamaConfig",
        GROUPED | {"rope_parameters": LLAMA_3 | {"original_max_position_embeddings": 8192}},
    ),
    "qwen2": ("Qwen2Config", GROUPED),
    "qwen2.5": (
        "Qwen2Config",
        GROUPED | {"use_sliding_window": False, "sliding_window": 131072, "max_window_layers": 28},
    ),
    "qwen2 with a window": (
        "Qwen2Config",
        GROUPED | {"use_sliding_window": True, "sliding_window": 4096, "max_window_layers": 1},
    ),
    "qwen3": ("Qwen3Config", HEADS),
    "qwen2 of experts": (
        "Qwen2MoeConfig",
        GROUPED
        | {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
        | {"shared_expert_intermediate_size": 16},
    ),
    "qwen3 of experts": (
        "Qwen3MoeConfig",
        HEADS
        | {"num_experts": 8, "num_experts_per_tok": 4, "moe_intermediate_size": 16, "norm_topk_prob": True},
    ),
    "mistral 0.1": ("MistralConfig", GROUPED | {"sliding_window": 4096}),
    "mistral 0.3": ("MistralConfig", GROUPED | {"sliding_window": None}),
    "mixtral": ("MixtralConfig", GROUPED | EXPERTS),
    "gemma": ("GemmaConfig", HEADS),
    "gemma 2": (
        "Gemma2Config",
        HEADS
        | {"sliding_window": 4096, "final_logit_softcapping": 30.0, "attn_logit_softcapping": 50.0}
        | {"query_pre_attn_scalar": 8},
    ),
    "gemma 3": (
        "Gemma3TextConfig",
        HEADS | {"sliding_window": 512, "query_pre_attn_scalar": 8, "num_hidden_layers": 6},
    ),
    "granite": (
        "GraniteConfig",
        GROUPED
        | {"logits_scaling": 8.0, "attention_multiplier": 0.015625}
        | {"embedding_multiplier": 12.0, "residual_multiplier": 0.22},
    ),
    "cohere": ("CohereConfig", GROUPED | {"logit_scale": 0.0625}),
    "cohere2": (
        "Cohere2Config",
        GROUPED | {"logit_scale": 0.25, "sliding_window": 4096, "num_hidden_layers": 4},
    ),
    "phi": ("PhiConfig", PLAIN),
    "phi 3": ("Phi3Config", GROUPED | {"sliding_window": 2047}),
    "olmo 2": ("Olmo2Config", GROUPED),
    "olmo 3": ("Olmo3Config", GROUPED | {"sliding_window": 4096, "num_hidden_layers": 4}),
    "gpt-oss": ("GptOssConfig", HEADS | EXPERTS | {"sliding_window": 128, "max_position_embeddings": 131072}),
    "smollm3": ("SmolLM3Config", GROUPED),
    "starcoder2": ("Starcoder2Config", GROUPED | {"sliding_window": 4096}),
    "stablelm": ("StableLmConfig", GROUPED),
    "falcon": ("FalconConfig", PLAIN),
    "glm4": ("Glm4Config", HEADS),
    "nemotron": ("NemotronConfig", HEADS),
    "gpt2": ("GPT2Config", GPT2),
    "gpt-j": ("GPTJConfig", GPT2 | {"rotary_dim": 4}),
    "gpt-neox": ("GPTNeoXConfig", PLAIN),
    "opt": ("OPTConfig", PLAIN | {"ffn_dim": 48, "word_embed_proj_dim": 32}),
}
# the same, and what the refusal says
WRONG: dict[str, tuple[str, dict[str, Any], str]] = {
    "llama whose RoPE grows": (
        "LlamaConfig",
        GROUPED | {"rope_parameters": {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 1e4}},
        "longer than 512 tokens",
    ),
    "phi 3 of two RoPEs": (
        "Phi3Config",
        GROUPED
        | {"rope_parameters": LONG | {"original_max_position_embeddings": 128}}
        | {"original_max_position_embeddings": 128},
        "longer than 128 tokens",
    ),
    "gpt-neo": (
        "GPTNeoConfig",
        NONE
        | {"vocab_size": 64, "hidden_size": 32, "num_layers": 2, "num_heads": 4, "window_size": 40}
        | {"attention_types": [[["global", "local"], 1]]},
        "longer than 40 tokens",
    ),
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
