"""A model and its tokenizer from a folder or the hub: whole, from safetensors, without a stranger's code."""

from chainforge.pretrained.load import load_model, load_tokenizer
from chainforge.pretrained.render import render_chat

__all__ = ["load_model", "load_tokenizer", "render_chat"]
