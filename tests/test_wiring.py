"""From names to objects: whatever a student model's plugin does, it is said in two lines and by name."""

from pathlib import Path
from typing import Any

import pytest

from chainforge.errors import ChainForgeError
from chainforge.plugins import load_plugins
from chainforge.wiring import load_student

PLUGIN = '''"""A student."""
import chainforge as cf

{body}

@cf.hookimpl
def register_student_models(register):
    register("student", Student)
'''
LOAD = "class Student:\n    def load(self, *, seed, texts):\n        "


def load(folder: Path, body: str) -> Any:
    (folder / "student.py").write_text(PLUGIN.format(body=body))
    return load_student(load_plugins(folder), "student", {}, seed=1, texts=["a"])


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        ("class Student:\n    pass", "which has no `load`"),
        ("def Student():\n    raise RuntimeError('no\\n way')", "cannot be made .*RuntimeError: no"),
        ("def Student(size):\n    pass", "takes 'size' by its place"),
        (LOAD + "raise RuntimeError('no way')", "`load` raised RuntimeError: no way"),
        (LOAD + "raise SystemExit(0)", "`load` raised SystemExit"),
        (LOAD + "import os; os._exit(0)", "`load` raised Left: os._exit was called"),
        (LOAD + "return 1", "`load` gave int\n  -> `load` returns"),
        (LOAD + "return 'model, tokenizer'", "`load` gave str\n"),
        (LOAD + "return 1, 2, 3", "`load` gave tuple\n"),
        ("def Student():\n    raise cf.ChainForgeError('that', 'do this')", "^that\n  -> do this"),
    ],
)
def test_what_goes_wrong_in_a_student_model_is_two_lines(tmp_path: Path, body: str, complaint: str) -> None:
    with pytest.raises(ChainForgeError, match=complaint) as caught:
        load(tmp_path, body)
    assert len(str(caught.value).splitlines()) == 2


def test_a_student_model_is_given_its_seed_and_texts(tmp_path: Path) -> None:
    assert load(tmp_path, LOAD + "return seed, texts") == (1, ["a"])
