"""Every dialect by its name."""

from chainforge.mock_teacher.anthropic_dialect import AnthropicDialect
from chainforge.mock_teacher.chat_dialect import ChatDialect
from chainforge.mock_teacher.dialect import Dialect

THINK = "<think>\n", "\n</think>\n\n"
KIMI = "◁think▷", "◁/think▷"

ANTHROPIC = AnthropicDialect()
CHAT = (
    ChatDialect(name="deepseek", field="reasoning_content", hits_and_misses=True),
    ChatDialect(name="openrouter", field="reasoning", details=True),
    ChatDialect(name="vllm", field="reasoning"),
    ChatDialect(name="sglang", field="reasoning_content"),
    ChatDialect(name="generic", field="reasoning_content"),
    ChatDialect(name="inline", opening=THINK[0], closing=THINK[1]),
    ChatDialect(name="inline-unopened", closing=THINK[1]),
    ChatDialect(name="kimi", opening=KIMI[0], closing=KIMI[1]),
)
DIALECTS: dict[str, Dialect] = {dialect.name: dialect for dialect in (*CHAT, ANTHROPIC)}
