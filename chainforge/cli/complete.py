"""What the shell offers after Tab: names of plugins, profiles, steps and roles."""

import os
from collections.abc import Callable, Iterable
from contextlib import ExitStack, redirect_stderr, redirect_stdout, suppress

import click

Complete = Callable[[click.Context, click.Parameter, str], list[str]]


def complete(names: Callable[[], Iterable[str]]) -> Complete:
    """A click callback that offers those names in the project's folder, and none where anything is wrong."""

    def offered(ctx: click.Context, param: click.Parameter, begun: str) -> list[str]:
        from chainforge.cli.project import enter_project

        with ExitStack() as quiet:
            nowhere = quiet.enter_context(open(os.devnull, "w"))
            for hold in (redirect_stdout(nowhere), redirect_stderr(nowhere), suppress(Exception)):
                quiet.enter_context(hold)
            enter_project(ctx, ctx.find_root().params.get("project"))
            return sorted({name for name in names() if name.startswith(begun)})
        return []

    return offered


def profile_names() -> Iterable[str]:
    """Those in profiles/."""
    from chainforge.project.profiles import names

    return names()


def plugin_names() -> Iterable[str]:
    """Of every role."""
    from chainforge.plugins import load_plugins

    return (name for _, name in load_plugins().entries)


def reward_names() -> Iterable[str]:
    """Rewards alone."""
    from chainforge.plugins import load_plugins

    return (name for role, name in load_plugins().entries if role == "rewards")


def role_names() -> Iterable[str]:
    """As a user writes them."""
    from chainforge.cli.roles import title
    from chainforge.plugins import ROLES

    return map(title, ROLES)


def collecting_steps() -> Iterable[str]:
    """The steps that ask a teacher."""
    from chainforge.project.graph import read_graph

    return (step.name for step in read_graph().values() if step.verb == "collect")


def sampling_steps() -> Iterable[str]:
    """The steps whose completions can be there."""
    from chainforge.completions.rows import KINDS
    from chainforge.project.graph import read_graph

    return (step.name for step in read_graph().values() if step.verb in KINDS)


def trained_steps() -> Iterable[str]:
    """The steps that train, sample or evaluate."""
    from chainforge.project.graph import read_graph

    verbs = ("sft", "distill", "grpo", "sample", "evaluate")
    return (step.name for step in read_graph().values() if step.verb in verbs)


def checkpoint_names() -> Iterable[str]:
    """Those that the settings evaluate, the base model among them."""
    from chainforge.config.loading import read_params

    params = read_params()
    return map(str, (*params["untouched"], *params["checkpoints"]))


def bench_names() -> Iterable[str]:
    """Those that the settings have."""
    from chainforge.config.loading import read_params

    return map(str, read_params()["benches"])


def diagnosed_steps() -> Iterable[str]:
    """The steps that the doctor has rules for."""
    from chainforge.doctor.read import known_steps

    return known_steps()
