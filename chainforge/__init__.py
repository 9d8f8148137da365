"""ChainForge's public API: all that a plugin may import. `import chainforge as cf`."""

from chainforge.errors import ChainForgeError
from chainforge.hookspecs import API_VERSION, Reward, StudentModel, Teacher, hookimpl
from chainforge.jsonl import read_rows
from chainforge.records import Completion, Example, Message, Prompt, Trace, from_json
from chainforge.response import Parsed, TagFormat, tag_format

__all__ = [
    "API_VERSION",
    "ChainForgeError",
    "Completion",
    "Example",
    "Message",
    "Parsed",
    "Prompt",
    "Reward",
    "StudentModel",
    "TagFormat",
    "Teacher",
    "Trace",
    "from_json",
    "hookimpl",
    "read_rows",
    "tag_format",
]
