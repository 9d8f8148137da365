"""Checkpoints and base models that are broken, or are no causal language models."""

import json

from clone import Clone

from malformed.case import Case, Spoil, both, put, write

GRPO = "python -m stages.grpo grpo_reasoning"
TOP = "checkpoints/qwen_sft_ckpt"


def config(**changed: object) -> Spoil:
    """Other values in config.json."""

    def spoil(clone: Clone) -> None:
        path = clone.folder / TOP / "config.json"
        write(f"{TOP}/config.json", json.dumps(json.loads(path.read_text()) | changed))(clone)

    return spoil


def weights(change: str) -> Spoil:
    """Tensors after this code, which sees them as `w`."""
    start = "import sys, torch; from safetensors.torch import load_file, save_file; p = sys.argv[1]"
    code = f"{start}; w = load_file(p); {change}; save_file(w, p + '.new')"

    def spoil(clone: Clone) -> None:
        path = f"{TOP}/model.safetensors"
        clone.run("python", "-c", code, path)
        write(path, (clone.folder / f"{path}.new").read_bytes())(clone)
        (clone.folder / f"{path}.new").unlink()

    return spoil


def cut(keep: int) -> Spoil:
    """Only the first bytes of the weights."""
    return lambda clone: write(
        f"{TOP}/model.safetensors", (clone.folder / TOP / "model.safetensors").read_bytes()[:keep]
    )(clone)


def moved(clone: Clone) -> None:
    """The checkpoint as a base model of the user's."""
    (clone.folder / "inputs").mkdir(exist_ok=True)
    (clone.folder / TOP).rename(clone.folder / "inputs/base")


FIRST = "name = sorted(w)[0]"
BROKEN: dict[str, Spoil] = {
    "truncated weights": cut(1000),
    "garbage weights": write(f"{TOP}/model.safetensors", b"garbage"),
    "no weights": write(f"{TOP}/model.safetensors", b""),
    "a tensor is missing": weights(f"{FIRST}; del w[name]"),
    "a tensor of another shape": weights(f"{FIRST}; w[name] = torch.zeros(3, 3)"),
    "an infinite weight": weights(f"{FIRST}; w[name].view(-1)[0] = float('inf')"),
    "every tensor has another prefix": weights("w = {'odd.' + k: v for k, v in w.items()}"),
    "config.json is a list": write(f"{TOP}/config.json", "[]"),
    "config.json is cut": write(f"{TOP}/config.json", '{"model_type": "qw'),
    "no heads": config(num_attention_heads=0),
    "10^9 hidden": config(hidden_size=10**9),
    "a text for a number": config(hidden_size="many"),
    "quantised": config(quantization_config={"quant_method": "fp8"}),
    "an attention that is not installed": config(attn_implementation="flash_attention_2"),
    "code of its own": config(auto_map={"AutoModelForCausalLM": "modeling_odd.Odd"}),
    "an encoder": config(model_type="bert", architectures=["BertModel"]),
    "an unknown architecture": config(model_type="never_heard_of"),
    "a smaller vocabulary than the tokenizer's": config(vocab_size=3),
    "tokenizer_config.json is garbage": write(f"{TOP}/tokenizer_config.json", "{"),
    "tokenizer.json is an empty object": write(f"{TOP}/tokenizer.json", "{}"),
    "a template with a syntax error": write(f"{TOP}/chat_template.jinja", "{% for %}"),
    "a template that raises": write(f"{TOP}/chat_template.jinja", "{{ raise_exception('no system role') }}"),
    "a template that gives nothing": write(f"{TOP}/chat_template.jinja", "{# nothing #}"),
    "a template that runs code": write(
        f"{TOP}/chat_template.jinja", "{{ ''.__class__.__mro__[1].__subclasses__() }}"
    ),
}
BY_PRETRAINED = (
    *("truncated weights", "a tensor is missing", "config.json is a list", "10^9 hidden", "quantised"),
    *("an encoder", "tokenizer.json is an empty object", "a template with a syntax error"),
)
CASES = [
    *(
        Case(
            tried=f"a base model: {name}",
            spoil=both(
                BROKEN[name], moved, put("base_model", {"plugin": "pretrained", "model": "inputs/base"})
            ),
            command="python -m stages.lock lock && python -m stages.sft sft_cold_start",
            says="inputs/base",
            changes=(r"^plugins\.lock\.json$",),
        )
        for name in BY_PRETRAINED
    ),
    *(
        Case(
            tried=f"a checkpoint: {name}",
            spoil=spoil,
            command=GRPO,
            says="qwen_sft_ckpt",
            quick=name == "a tensor is missing",
        )
        for name, spoil in BROKEN.items()
    ),
    Case(
        tried="a checkpoint: a pickle in place of the weights",
        spoil=both(
            cut(0),
            write(f"{TOP}/pytorch_model.bin", b"\x80\x04cos\nsystem\n(S'touch pwned'\ntR."),
            lambda clone: (clone.folder / TOP / "model.safetensors").unlink(),
        ),
        command=GRPO,
        says="safetensors|bin",
    ),
]
