"""Laws of the page and its figures: nothing from outside, nothing executed, nothing hidden."""

import base64
import hashlib
import html
import json
import math
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chainforge.defuse import defuse
from chainforge.report.figures import moving_average, thin
from chainforge.report.samples import as_answer, parse
from chainforge.report.subject import Subject
from chainforge.report.write import write_report
from chainforge.response import Parsed, tag_format

VOID = {"meta", "br", "wbr", "img", "link", "input"}


class Page(HTMLParser):
    """Collects elements, ids and targets, and checks that every element is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.targets: list[str] = []
        self.headers_without_scope = 0
        self.feed(text)
        assert self.open == []

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.tags.append(tag)
        self.ids += [value for key, value in attrs if key == "id" and value]
        self.targets += [value for key, value in attrs if key in ("href", "src", "xlink:href") and value]
        self.headers_without_scope += tag == "th" and "scope" not in values
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.mark.slow
def test_the_page_refers_to_nothing_outside_its_folder(report: Path) -> None:
    text = (report / "index.html").read_text(encoding="utf-8")
    assert "http" not in text.replace("http-equiv", "")
    assert not re.search(r"@import|url\((?!#)", text)
    page = Page(text)
    assert page.tags.count("svg") == 2 + 2 + 5 + 2 + 1
    assert not {"img", "link", "iframe", "object"} & set(page.tags)
    assert len(page.ids) == len(set(page.ids))
    local = {target.removeprefix("#") for target in page.targets if target.startswith("#")}
    assert local <= set(page.ids)
    assert {t for t in page.targets if not t.startswith("#")} <= {path.name for path in report.iterdir()}
    assert page.headers_without_scope == 0


@pytest.mark.slow
def test_the_figure_is_a_drawing_of_its_own_that_loads_nothing(report: Path) -> None:
    text = (report / "curves.svg").read_text(encoding="utf-8")
    ElementTree.fromstring(text)
    assert set(re.findall(r'http[^"]*', text)) == {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }


@pytest.mark.slow
def test_hostile_text_is_shown_and_never_run(report: Path) -> None:
    text = (report / "index.html").read_text(encoding="utf-8")
    page = Page(text)
    assert page.tags.count("script") == 1
    assert "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;" in text
    assert "{{ 7*7 }}" in text
    assert "my&lt;own&gt;$ckpt$" in text
    for tag in ("<own>", "<u>", "<i>odd", "<b>numbers", "42 <b>", "onerror=y>"):
        assert tag not in text
    assert "Not in the response format" in text
    assert not set(map(chr, range(32))) & set(text) - {"\t", "\n"}


@pytest.mark.slow
def test_what_a_trimmed_graph_lacks_is_left_out_and_said(
    root: Path, tmp_path: Path, subject: Subject
) -> None:
    (root / "plots" / "grpo_final.csv").unlink()
    write_report(root=root, out=tmp_path / "some", subject=subject)
    page = (tmp_path / "some" / "index.html").read_text(encoding="utf-8")
    assert page.count("Left out:") == 1
    assert "plots/grpo_final.csv is not there" in page
    shutil.rmtree(root)
    nothing = subject.model_copy(update={"checkpoints": (), "parents": {}})
    write_report(root=root, out=tmp_path / "none", subject=nothing)
    assert (tmp_path / "none" / "stages.json").read_text() == "[]\n"
    assert (tmp_path / "none" / "index.html").read_text(encoding="utf-8").count("Left out:") == 8


def test_every_checkpoint_answers_the_same_problems_of_every_family(report: Path, subject: Subject) -> None:
    text = (report / "index.html").read_text(encoding="utf-8")
    assert text.count('class="badge"') == 3 * len(subject.checkpoints) * len(subject.benches)
    assert text.count("· sorting ·") + text.count("· &lt;u&gt;sum&lt;/u&gt; ·") == 6
    assert min(text.count("· sorting ·"), text.count("· &lt;u&gt;sum&lt;/u&gt; ·")) == 2


def test_smoothing_leaves_a_constant_alone_and_steps_over_gaps() -> None:
    assert moving_average([2.0, math.nan, 2.0] * 40) == [2.0] * 120
    assert math.isnan(moving_average([math.nan] * 3)[1])


@given(n=st.integers(1, 2000), most=st.integers(1, 400))
def test_thinning_keeps_at_most_so_many_points_and_always_the_last(n: int, most: int) -> None:
    x, y = thin(range(n), [0.5] * n, most)
    assert len(x) == len(y) <= most
    assert x[-1] == n - 1


@pytest.mark.parametrize("text", ["<think>a</think><answer>b</answer>", "a</think><answer>b</answer>"])
def test_an_opening_tag_that_the_template_wrote_may_be_missing(text: str) -> None:
    assert parse(tag_format("r1-prefilled"), text) == Parsed("a", "b")


def test_a_policy_allows_nothing_from_outside_and_of_scripts_this_one_alone(report: Path) -> None:
    text = (report / "index.html").read_text(encoding="utf-8")
    (policy,) = re.findall(r'<meta http-equiv="Content-Security-Policy" content="([^"]*)">', text)
    assert text.index("Content-Security-Policy") < text.index("<title>")
    rules = dict(rule.strip().partition(" ")[::2] for rule in html.unescape(policy).split(";"))
    (script,) = re.findall(r"<script>(.*?)</script>", text, flags=re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert rules == {
        "default-src": "'none'",
        "script-src": f"'sha256-{digest}'",
        "style-src": "'unsafe-inline'",
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    assert not re.search(r"<[^>]*\son\w+=", text), "such a handler would be blocked"


def test_what_turns_text_around_is_shown_and_not_obeyed(report: Path) -> None:
    for name in ("index.html", "curves.svg"):
        text = (report / name).read_text(encoding="utf-8")
        assert defuse(text) == text
    assert "⟨U+202E⟩" in (report / "index.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_a_conversation_is_shown_whole(root: Path, tmp_path: Path, subject: Subject) -> None:
    for path in root.glob("data/eval/*/*.jsonl"):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        for row in rows:
            row["messages"] = [
                {"role": "system", "content": "Be <brief>."},
                {"role": "user", "content": "The first turn"},
                {"role": "assistant", "content": "What was said to it"},
                {"role": "user", "content": row["question"]},
            ]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    write_report(root=root, out=tmp_path / "out", subject=subject)
    page = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    for turn in (
        "system</span> Be &lt;brief&gt;.",
        "user</span> The first",
        "assistant</span> What was said",
    ):
        assert page.count(turn) == subject.samples_per_bench * len(subject.benches)


def test_an_answer_with_an_empty_part_is_not_in_the_format(subject: Subject) -> None:
    for parts in ((" ", "42"), ("steps", "\n"), ("", "")):
        text = subject.response_format.render(*parts)
        sample = {"text": text, "rewards": {}, "finish": "stop", "tokens": 3}
        assert as_answer("mine", sample, 0.0, subject).parsed is None
