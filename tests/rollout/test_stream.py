"""What is read along is what would have been sampled."""

import pytest
from fakes import make_step, policy

from chainforge.config.sampling import SamplingSettings
from chainforge.rollout.engine import Request
from chainforge.rollout.stream import StreamingEngine


@pytest.mark.slow
@pytest.mark.parametrize("temperature", [0.0, 1.0, 3.0])
def test_the_tokens_that_are_streamed_are_those_of_generate(temperature: float) -> None:
    settings = SamplingSettings(temperature=temperature, max_new_tokens=40)
    engine = StreamingEngine(policy(), make_step())
    prompt = [5, 9, 14, 30]
    ended = set()
    for seed in range(12):
        ((expected,),) = engine.generate([Request(prompt, [seed])], settings)
        text = expected.token_ids[:-1] if expected.finish == "stop" else expected.token_ids
        assert tuple(engine.stream(prompt, seed, settings)) == text
        ended.add(expected.finish)
    assert "length" in ended
    assert temperature < 3 or "stop" in ended, "the EOS token is among what was tried"


def test_who_stops_reading_gets_no_more_and_may_ask_again() -> None:
    settings = SamplingSettings(max_new_tokens=40)
    engine = StreamingEngine(policy(), make_step())
    tokens = engine.stream([5, 9], 1, settings)
    first = [next(tokens), next(tokens)]
    tokens.close()  # type: ignore[attr-defined]
    assert list(engine.stream([5, 9], 1, settings))[:2] == first
