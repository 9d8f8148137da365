"""Which request meets which fault: by chance, and the same chance each time."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chainforge.errors import ChainForgeError
from chainforge.mock_teacher.asked import Label
from chainforge.mock_teacher.faults import FAULTS
from chainforge.mock_teacher.script import FaultScript

MIXED = FaultScript(rates={"rate_limited": 0.1, "hang": 0.2, "bad_request": 0.05}, seed=3, attempts=2)
labels = st.builds(Label, st.integers(0, 99), st.text(max_size=9), st.integers(0, 9), st.integers(0, 9))


def names(script: FaultScript, n: int = 4000, **label: int) -> list[str | None]:
    found = [
        script.fault(Label(1, f"p{i}", label.get("sample", 0), label.get("attempt", 0)), i) for i in range(n)
    ]
    return [fault.name if fault else None for fault in found]


@given(label=labels, numbers=st.lists(st.integers(1, 999), min_size=2, max_size=2))
def test_neither_the_order_of_requests_nor_the_run_s_seed_matters(label: Label, numbers: list[int]) -> None:
    first, second = (MIXED.fault(label, number) for number in numbers)
    assert first == second == MIXED.fault(Label(0, label.prompt, label.sample, label.attempt), 1)


def test_rates_are_fractions_of_the_samples() -> None:
    found = names(MIXED)
    for name, rate in MIXED.rates.items():
        assert abs(found.count(name) / len(found) - rate) < 0.02


def test_another_seed_and_another_sample_strike_other_requests() -> None:
    other = FaultScript(rates=MIXED.rates, seed=4, attempts=2)
    assert len({tuple(names(MIXED)), tuple(names(other)), tuple(names(MIXED, sample=1))}) == 3


@given(label=labels)
def test_only_the_first_attempts_are_struck_but_a_refused_prompt_stays_refused(label: Label) -> None:
    fault = MIXED.fault(label, 1)
    lasting = fault is not None and fault.then == "skip"
    assert lasting or label.attempt < 2 or fault is None
    if lasting:
        assert MIXED.fault(Label(5, label.prompt, 3, 8), 99) == fault


@given(label=labels, number=st.integers(1, 20))
def test_from_some_request_on_everybody_is_refused(label: Label, number: int) -> None:
    script = FaultScript(after={"payment_required": 10})
    assert script.fault(label, number) == (FAULTS["payment_required"] if number >= 10 else None)


def test_the_command_line_s_form_and_a_file_say_the_same(tmp_path: Path) -> None:
    path = tmp_path / "faults.yaml"
    path.write_text("rates: {hang: 0.25, cut_json: 1e-2}\nafter: {unauthorized: 7}\n")
    expected = FaultScript(rates={"hang": 0.25, "cut_json": 0.01}, after={"unauthorized": 7})
    assert FaultScript.parse("hang=0.25, cut_json=1e-2,unauthorized@7") == FaultScript.read(path) == expected
    path.write_text("attempts: 3\nseed: 5\nretry_after_s: 0.5\n")
    assert FaultScript.read(path) == FaultScript(attempts=3, seed=5, retry_after_s=0.5)
    path.write_text("")
    assert FaultScript.read(path) == FaultScript()


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("rate_limitd=0.1", "there is no fault called 'rate_limitd'\n  -> did you mean 'rate_limited'"),
        ("hang", "'hang' is not NAME=RATE"),
        ("hang=often", "faults: rates.hang: Input should be a valid number"),
        ("hang=0.6,cut_json=0.6", "the rates of the faults are"),
        ("hang=-1", "the rates of the faults are"),
        ("hang@0", "requests are counted from 1"),
        ("hang@1.5", "faults: after.hang: "),
    ],
)
def test_a_script_that_makes_no_sense_is_an_error(text: str, complaint: str) -> None:
    with pytest.raises(ChainForgeError) as raised:
        FaultScript.parse(text)
    assert complaint in str(raised.value)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("rate: {hang: 1}", "did you mean 'rates'"),
        ("[hang]", "not a mapping"),
        ("rates: {hang", "line 1: not YAML"),
        ("attempts: -1", "none of them is below 0"),
    ],
)
def test_a_file_that_makes_no_sense_is_an_error(text: str, complaint: str, tmp_path: Path) -> None:
    path = tmp_path / "faults.yaml"
    path.write_text(text)
    with pytest.raises(ChainForgeError) as raised:
        FaultScript.read(path)
    assert complaint in str(raised.value)


def test_a_file_that_is_not_there_is_an_error() -> None:
    with pytest.raises(ChainForgeError, match=r"nowhere\.yaml"):
        FaultScript.read(Path("nowhere.yaml"))


def test_each_fault_that_a_wire_cannot_have_leads_to_one_that_it_can() -> None:
    for fault in FAULTS.values():
        if fault.otherwise:
            assert fault.applies != "both"
            assert FAULTS[fault.otherwise].applies != fault.applies
