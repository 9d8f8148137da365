"""A model and its tokenizer from a folder or the hub: whole, from safetensors, without a stranger's code."""

from chainforge.pretrained.load import load_model, load_tokenizer

__all__ = ["load_model", "load_tokenizer"]
