"""The shape of the project: who may import whom, how long a file may be, and that nothing dangles."""

import ast
import inspect
from collections.abc import Iterator
from contextlib import chdir
from functools import cache
from pathlib import Path

import pytest
from ruamel.yaml import YAML
from tree import PROFILES, ROOT, project_files

import chainforge
from chainforge import hookspecs
from chainforge.config.verbs import VERBS
from chainforge.plugins import ROLES, load_plugins
from chainforge.project.code_digests import closure
from chainforge.project.graph import COMMAND
from chainforge.project.lock import make_lock
from chainforge.project.profiles import compose

CODE = [path for path in project_files() if path.suffix == ".py"]
OF_CHAINFORGE = [path for path in CODE if ROOT / "chainforge" in path.parents]
STAGES = [path for path in CODE if path.parent.name == "stages" and path.name != "__init__.py"]
SHIPPED = [path for path in CODE if path.relative_to(ROOT).parts[0] in ("chainforge", "plugins", "stages")]
PLUGINS = [path for path in CODE if path.parent == ROOT / "plugins"]
SLOW_TO_IMPORT = {"torch", "transformers", "tokenizers", "safetensors"}

# What each part of chainforge/ may import of the others. A new part needs a line. In these folders every
# module is a part of its own:
WINGS = {"project", "providers"}
GROUND = {"records", "errors"}
PROVIDERS = {f"providers.{name}" for name in ("calls", "nesting", "prices", "reasoning", "secrets")}
FLOOR = GROUND | PROVIDERS | {"algorithms", "answer", "config", "defuse", "hookspecs", "jsonl", "outputs"}
FLOOR |= {"containment", "original", "rendering", "response", "reward_options"}
WALLS = {"models", "learner", "rollout", "run", "report", "scoring"}
MAY_IMPORT: dict[str, set[str]] = {
    "records": set(),
    "errors": set(),
    "bundle": set(),
    "containment": {"errors"},
    "defuse": set(),
    "rendering": set(),
    "algorithms": GROUND,
    "answer": {"records"},
    "response": GROUND,
    "providers": set(),
    "providers.calls": GROUND,
    "providers.prices": GROUND | {"providers.calls"},
    "providers.reasoning": GROUND,
    "providers.classify": GROUND | {"providers.calls", "providers.secrets"},
    "providers.nesting": set(),
    "providers.secrets": GROUND | {"providers.nesting"},
    "providers.openai_chat": {
        "providers." + name for name in ("calls", "chat_answer", "chat_body", "secrets")
    },
    "providers.chat_answer": {"providers.calls", "providers.reasoning"},
    "providers.chat_body": {"providers.chat_answer", "providers.nesting"},
    "reward_options": GROUND,
    "jsonl": GROUND | {"outputs", "providers.reasoning"},
    "original": set(),
    "outputs": set(),
    "problems": GROUND | {"jsonl"},
    "config": GROUND | {"algorithms", "response"},
    "hookspecs": GROUND | {"providers.calls", "providers.prices", "response"},
    "__init__": FLOOR - {"algorithms", "config"} | {"filtering", "pretrained", "problems", "sandbox"},
    "memory": GROUND,
    "pretrained": GROUND | {"memory"},
    "models": FLOOR | {"memory", "pretrained", "run"},
    "learner": FLOOR | {"memory", "models", "run"},
    "run": FLOOR | {"memory", "project.recorded"},
    "sandbox": GROUND,
    "scoring": FLOOR,
    "watching": FLOOR | {"run"},
    "teachers": FLOOR | {"run"},
    "mock_teacher": FLOOR,
    "filtering": FLOOR,
    "report": FLOOR | {"filtering", "run"},
    "doctor": FLOOR | {"project.graph", "project.recorded", "report", "run"},
    "rollout": FLOOR | {"learner", "memory", "models", "run"},
    "model_card": FLOOR | {"filtering", "project.graph", "project.recorded", "report"},
    "loops": FLOOR | WALLS - {"report"} | {"filtering", "teachers"},
    "completions": FLOOR | {"project.graph", "report", "run"},
    "trace": FLOOR
    | {"completions", "filtering", "loops", "project.graph", "project.recorded", "report", "run", "teachers"},
    "plugins": FLOOR | {"bundle"},
    "preflight": FLOOR
    | {"learner", "loops", "models", "plugins", "rollout", "run", "scoring", "wiring"}
    | {f"project.{name}" for name in ("graph", "lock_entry", "new_policy", "preflight")},
    "project": set(),
    "project.stanzas": FLOOR,
    "project.graph": FLOOR | {"project.stanzas"},
    "project.recorded": FLOOR,
    "project.brought": {"original"},
    "project.claims": FLOOR | {"project.graph", "project.recorded"},
    "project.preflight": FLOOR
    | {f"project.{name}" for name in ("claims", "gates", "graph", "lock_entry", "recorded")}
    | {"plugins", "run", "scoring"},
    "project.overlay": FLOOR | {"project.graph", "project.stanzas"},
    "project.profiles": FLOOR | {"project.graph", "project.overlay", "project.stanzas", "run"},
    "project.code_digests": {"bundle", "errors", "original", "outputs"},
    "project.file_digests": {"original", "outputs"},
    "project.lock_entry": FLOOR
    | {"project.code_digests", "project.file_digests", "project.graph", "plugins"},
    "project.gates": FLOOR | {"project.claims", "project.graph"},
    "project.graders": FLOOR | {"project.code_digests", "project.lock_entry", "plugins"},
    "project.lock": FLOOR | {"project.graph", "project.lock_entry", "plugins"},
    "project.held_inputs": FLOOR
    | {f"project.{name}" for name in ("claims", "file_digests", "graph", "lock_entry")}
    | {"plugins", "run"},
    "project.stage": FLOOR | {"project.graph", "project.held_inputs", "plugins", "run"},
    "project.new_policy": FLOOR | {"models", "plugins", "run", "wiring"},
    "project.starting_policy": FLOOR | {"models", "plugins", "project.new_policy", "run"},
    "project.lock_diff": FLOOR | {"project.graph", "project.lock_entry"},
    "repro": FLOOR | {"project.recorded"},
    "own_project": FLOOR | {"__version__", "bundle", "project.graph", "project.profiles", "run"},
    "judge": FLOOR | {"plugins", "teachers"},
    "wiring": FLOOR | {"containment", "plugins", "run", "scoring"},
    "testing": FLOOR
    | {"project.code_digests", "models", "plugins", "pretrained", "rollout", "run", "scoring", "wiring"},
    "pytest_plugin": {"records", "response", "testing"},
    "__main__": {"cli"},
    "cli": FLOOR
    | {f"project.{name}" for name in ("file_digests", "graders", "graph", "held_inputs", "preflight")}
    | {f"project.{name}" for name in ("lock", "lock_diff", "lock_entry", "profiles", "recorded")}
    | {
        "__version__",
        "completions",
        "bundle",
        "doctor",
        "learner",
        "loops",
        "mock_teacher",
        "model_card",
        "models",
        "own_project",
        "plugins",
        "preflight",
        "pretrained",
        "report",
        "repro",
        "rollout",
        "run",
        "teachers",
        "trace",
        "watching",
    }
    | {"testing", "wiring"},
}


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imports(nodes: Iterator[ast.AST]) -> Iterator[str]:
    """Dotted names that these nodes import; `from chainforge import x` is chainforge.x."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "a relative import hides who is meant"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def part(path: Path) -> str:
    return part_of(".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"))


def part_of(dotted: str) -> str:
    """The part that chainforge.a.b.c is in: a, or a.b in a wing."""
    names = dotted.split(".")[1:] or ["__init__"]
    return ".".join(names[: 2 if names[0] in WINGS else 1])


def test_imports_go_one_way(subtests: pytest.Subtests) -> None:
    for path in OF_CHAINFORGE:
        with subtests.test(str(path)):
            own = part(path)
            assert own in MAY_IMPORT, f"{own} is new: give it a line in MAY_IMPORT"
            used = {part_of(name) for name in imports(ast.walk(tree(path))) if name.startswith("chainforge.")}
            assert used - {own} <= MAY_IMPORT[own]


def test_nothing_imports_stages_or_the_plugins_folder(subtests: pytest.Subtests) -> None:
    for path in CODE:
        with subtests.test(str(path)):
            used = {name.split(".")[0] for name in imports(ast.walk(tree(path)))}
            assert used.isdisjoint({"stages", "plugins"})


@pytest.mark.parametrize("path", PLUGINS, ids=str)
def test_a_plugin_uses_the_public_api_only_and_is_quick_to_import(path: Path) -> None:
    top = tree(path)
    ours = {name for name in imports(ast.walk(top)) if name.split(".")[0] == "chainforge"}
    beyond = {"chainforge.providers.openai_chat"} if path.name.startswith("teacher_") else set()
    beyond |= {"chainforge.judge.ask_judge"} if path.stem == "reward_llm_judge" else set()
    beyond |= {"chainforge.providers.classify"} if path.stem == "reward_reward_model" else set()
    assert {".".join(name.split(".")[:3]) for name in ours} <= {"chainforge"} | beyond, (
        "import chainforge as cf"
    )
    used = {n.attr for n in ast.walk(top) if isinstance(n, ast.Attribute) and ast.unparse(n.value) == "cf"}
    assert used <= set(chainforge.__all__)
    assert {name.split(".")[0] for name in imports(iter(top.body))}.isdisjoint(SLOW_TO_IMPORT)


@pytest.mark.slow
def test_the_lock_step_never_waits_for_torch() -> None:
    files = closure(ROOT, ROOT / "stages/lock.py")
    assert len(files) > 10
    for path in [*files, *PLUGINS]:
        quick = {name.split(".")[0] for name in imports(iter(tree(path).body))}
        assert quick.isdisjoint(SLOW_TO_IMPORT), path


def test_files_and_functions_stay_small_enough_to_read(subtests: pytest.Subtests) -> None:
    for path in CODE:
        with subtests.test(str(path)):
            lines = path.read_text(encoding="utf-8").count("\n")
            assert lines <= (60 if path in STAGES else 200)
            for node in ast.walk(tree(path)):
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                    assert (node.end_lineno or 0) - node.lineno < 60, node.name


def assigned(top: ast.Module) -> Iterator[ast.Attribute]:
    """Attributes that a file sets or deletes; setattr and delattr count too, and so do type annotations."""
    for node in ast.walk(top):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store | ast.Del):
            yield node
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("setattr", "delattr"):
            match node.args[1]:
                case ast.Constant(value=str(name)):
                    yield ast.Attribute(node.args[0], name)


def test_models_are_changed_by_nobody_but_the_learner(subtests: pytest.Subtests) -> None:
    """No `forward` is swapped, no private attribute of torch or transformers set, no `.grad` written."""
    for path in SHIPPED:
        with subtests.test(str(path)):
            for attribute in assigned(tree(path)):
                owner, name = ast.unparse(attribute.value), attribute.attr
                assert name != "forward", f"{owner}.forward is swapped"
                private = name.startswith("_") and not name.endswith("__")
                assert not private or owner in ("self", "cls"), f"{owner}.{name} is private"
                assert name != "grad" or path.parent.name == "learner", (
                    f"{owner}.grad is written outside of the learner"
                )


@pytest.mark.parametrize("role", ROLES)
def test_every_hook_is_documented(role: str) -> None:
    hook = getattr(hookspecs, f"register_{role}")
    assert inspect.getdoc(hook)
    assert f"`{hook.__name__}`" in (ROOT / "docs/plugins.md").read_text(encoding="utf-8")


def test_every_hook_has_a_role() -> None:
    assert {name for name in vars(hookspecs) if name.startswith("register_")} == {
        f"register_{r}" for r in ROLES
    }


def test_every_yaml_file_loads() -> None:
    ours = [path for path in project_files() if path.suffix in (".yaml", ".yml")]
    assert {ROOT / "dvc.yaml", ROOT / "profiles/tiny.yaml"} <= set(ours)
    for path in ours:
        assert isinstance(YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8")), dict), path


def test_every_step_has_a_stage_script_and_every_script_a_step() -> None:
    graph = YAML(typ="safe", pure=True).load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    commands = {name: stanza.get("do", stanza)["cmd"] for name, stanza in graph.items()}
    verbs = {name: match[1] for name, command in commands.items() if (match := COMMAND.match(command))}
    assert set(verbs) == set(graph)
    assert set(verbs.values()) == {path.stem for path in STAGES} == {*VERBS, "lock"}
    for name, command in commands.items():
        assert command.split()[-1].partition("@")[0] == name


@pytest.mark.dear
@pytest.mark.parametrize("profile", PROFILES)
def test_every_plugin_and_setting_that_a_profile_names_exists(profile: str, tmp_path: Path) -> None:
    with chdir(ROOT):
        (tmp_path / "params.yaml").write_text(compose(profile), encoding="utf-8")
    (tmp_path / "dvc.yaml").symlink_to(ROOT / "dvc.yaml")
    (tmp_path / "plugins").symlink_to(ROOT / "plugins")
    with chdir(tmp_path):
        lock = make_lock(load_plugins())
    assert {"prompts", "sft_cold_start", "grpo_final", "evaluate", "report"} <= set(lock)
