"""ChainForge's public API: all that a plugin may import. `import chainforge as cf`."""

from importlib.metadata import PackageNotFoundError, version

from chainforge.answer import answer_kind, boxed, marked_answer, read_answer, same_answer
from chainforge.errors import ChainForgeError
from chainforge.filtering.language import script_share
from chainforge.filtering.repetition import repeated_share
from chainforge.hookspecs import API_VERSION, ApiClient, ApiTeacher, Reward, StudentModel, Teacher, hookimpl
from chainforge.jsonl import count_rows, read_rows
from chainforge.pretrained import load_model, load_tokenizer, render_chat
from chainforge.problems import (
    Row,
    check_split,
    choose,
    draw_apart,
    file_rows,
    hub_rows,
    read_pattern,
    split_of,
)
from chainforge.providers.calls import Call, CallFailed, Reply, Usage, refusal, status_of
from chainforge.providers.prices import FREE, Prices
from chainforge.providers.reasoning import split_reasoning
from chainforge.providers.secrets import refuse_keys, secret, without_key
from chainforge.records import Completion, Example, Message, Prompt, Trace, check_messages, from_json
from chainforge.response import Parsed, TagFormat, tag_format
from chainforge.sandbox import Limits, Outcome, check_sandbox, run_program, run_tests

try:
    __version__ = version("chainforge-r1")
except PackageNotFoundError:  # the folder alone, not installed
    __version__ = "unknown"

__all__ = [
    "API_VERSION",
    "FREE",
    "ApiClient",
    "ApiTeacher",
    "Call",
    "CallFailed",
    "ChainForgeError",
    "Completion",
    "Example",
    "Limits",
    "Message",
    "Outcome",
    "Parsed",
    "Prices",
    "Prompt",
    "Reply",
    "Reward",
    "Row",
    "StudentModel",
    "TagFormat",
    "Teacher",
    "Trace",
    "Usage",
    "__version__",
    "answer_kind",
    "boxed",
    "check_messages",
    "check_sandbox",
    "check_split",
    "choose",
    "count_rows",
    "draw_apart",
    "file_rows",
    "from_json",
    "hookimpl",
    "hub_rows",
    "load_model",
    "load_tokenizer",
    "marked_answer",
    "read_answer",
    "read_pattern",
    "read_rows",
    "refusal",
    "refuse_keys",
    "render_chat",
    "repeated_share",
    "run_program",
    "run_tests",
    "same_answer",
    "script_share",
    "secret",
    "split_of",
    "split_reasoning",
    "status_of",
    "tag_format",
    "without_key",
]
