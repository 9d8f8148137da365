"""A conversation with a model: what was said, and the next answer as it comes."""

from collections.abc import Generator, Iterator, Sequence

from tokenizers.decoders import DecodeStream
from transformers import PreTrainedTokenizerBase

from chainforge.cli.chat_parts import Piece, Splitter
from chainforge.config.sampling import SamplingSettings
from chainforge.errors import ChainForgeError
from chainforge.models.chat import decode_response, encode_prompt, opening
from chainforge.models.checkpoint import Policy
from chainforge.providers.reasoning import without_reasoning
from chainforge.records import Finish, Message
from chainforge.rollout.stream import StreamingEngine
from chainforge.run.seeds import derive
from chainforge.run.step import Step


class Conversation:
    """Prompts are made as training makes them. Of earlier answers the model sees all but the reasoning.

    `system` is the system message, if any. Of the last turn: `finish` is how it ended, None if it was
    stopped, and `answered` whether there was more than reasoning.
    """

    system: str
    finish: Finish | None
    answered: bool

    def __init__(self, policy: Policy, step: Step, settings: SamplingSettings, system: str) -> None:
        self._tokenizer, self._form, self._settings = policy.tokenizer, step.response_format, settings
        self._engine, self._seed = StreamingEngine(policy, step), step.settings.seed
        self._opening = opening(policy.tokenizer, self._form)
        self._most = getattr(policy.model.config.get_text_config(), "max_position_embeddings", None)
        self._turns: list[Message] = []
        self._asked = 0
        self.system, self.finish, self.answered = system, None, False

    def reset(self) -> None:
        """Forget all turns; the system message stays."""
        self._turns.clear()

    def ask(self, question: str) -> Generator[Piece]:
        """The answer in pieces. Close it to stop: what was said until then is kept as the answer.

        A turn without an answer, because the reasoning did not end, is left out of what follows.
        """
        asked = Message(role="user", content=question)
        prompt_ids = encode_prompt(self._tokenizer, self._messages(asked), self._opening)
        limit = self._limit(len(prompt_ids))
        settings = self._settings.model_copy(update={"max_new_tokens": limit})
        self._asked += 1
        tokens = self._engine.stream(prompt_ids, derive(self._seed, "chat", self._asked), settings)
        splitter, text, ids = Splitter(self._form), self._opening, list[int]()
        self.finish, self.answered = None, False
        try:
            yield from splitter.add(text)
            for part in decode_stream(self._tokenizer, tokens, ids):
                text += part
                yield from splitter.add(part)
            yield from splitter.end()
            self.finish = "length" if len(ids) == limit else "stop"
        finally:
            answered = Message(role="assistant", content=text)
            self.answered = bool(without_reasoning([answered])[0]["content"])
            if self.answered:
                self._turns += [asked, answered]

    def _messages(self, asked: Message) -> Sequence[Message]:
        system = [Message(role="system", content=self.system)] if self.system else []
        return [*system, *self._turns, asked]

    def _limit(self, length: int) -> int:
        """How many tokens the answer may have. Raises ChainForgeError where there is no room for one."""
        most = self._settings.max_new_tokens
        if not isinstance(self._most, int):
            return most
        if length >= self._most:
            raise ChainForgeError(
                f"the conversation has {length:,} tokens, and the model takes {self._most:,}",
                "begin anew with /reset, or ask something shorter",
            )
        return min(most, self._most - length)


def decode_stream(tokenizer: PreTrainedTokenizerBase, tokens: Iterator[int], ids: list[int]) -> Iterator[str]:
    """Texts that join to what the tokens say; a character made of several comes with its last one.

    The tokens are added to `ids` on the way.
    """
    stream, said = DecodeStream(skip_special_tokens=True), ""
    for token in tokens:
        ids.append(token)
        if part := stream.step(tokenizer.backend_tokenizer, token):
            said += part
            yield part
    whole = decode_response(tokenizer, ids)  # half a character at the end comes as its sign
    if whole.startswith(said) and whole != said:
        yield whole[len(said) :]
