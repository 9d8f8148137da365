"""How an answer ended, in the words of any provider."""

from collections.abc import Mapping

from chainforge.records import Finish

# OpenAI's own word comes first; the others are those of servers that pass on what their engine says.
WORDS: Mapping[Finish, frozenset[str]] = {
    "stop": frozenset(
        {"stop", "stop_sequence", "eos", "eos_token", "end", "end_turn", "complete", "completed", "done"}
        | {"finish", "finished", "normal", "success"}
    ),
    "length": frozenset(
        {
            "length",
            "max_tokens",
            "max_length",
            "max_output_tokens",
            "model_length",
            "model_context_window_exceeded",
        }
        | {"model_context_window_exceeded", "context_length_exceeded"}
    ),
    "content_filter": frozenset(
        {"content_filter", "content_filtered", "safety", "refusal", "blocked", "prohibited_content"}
        | {"recitation", "sensitive"}
    ),
    "error": frozenset(
        {"insufficient_system_resource", "network_error", "server_error", "error", "abort", "aborted"}
        | {"cancelled", "canceled", "timeout", "overloaded"}
    ),
}


def finish_of(said: str) -> Finish | None:
    """What a `finish_reason` means: "error" where the provider broke off; None for a word nobody knows."""
    word = said.strip().casefold()
    return next((finish for finish, words in WORDS.items() if word in words), None)
