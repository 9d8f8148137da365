"""`chainforge card`: where a checkpoint comes from, what it can do, and how to use it."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from chainforge import __version__
from chainforge.cli.complete import complete
from chainforge.cli.find_model import checkpoint_folders, find_checkpoint
from chainforge.cli.project import Place, ProjectCommand
from chainforge.cli.show import show
from chainforge.errors import ChainForgeError
from chainforge.outputs import write_text

if TYPE_CHECKING:
    from chainforge.model_card.write import Facts

licence_option = click.option(
    "--license",
    "licence",
    metavar="ID",
    help="What you give the weights under: apache-2.0, mit, …  [unknown]",
)
base_option = click.option(
    "--base-model",
    "base",
    metavar="USER/NAME",
    help="The base model's name on the hub, where it was a folder.",
)


@click.command(cls=ProjectCommand)
@click.argument("checkpoint", shell_complete=complete(checkpoint_folders))
@click.option("--out", type=Place(), help="Write it to this file.  [default: standard output]")
@click.option("--repo", metavar="USER/NAME", help="Where it will lie, for the examples of its use.")
@licence_option
@base_option
def card(checkpoint: str, out: Path | None, repo: str | None, licence: str | None, base: str | None) -> None:
    """Write the model card of CHECKPOINT, a name below checkpoints/, in the Hugging Face hub's format.

    Steps, settings, data, code and plugins are those of dvc.lock, so of the run that made the weights; the
    figures are of evaluations of these very weights. Keys, addresses and paths outside of the project are
    left out, and so are dates: the same checkpoint gives the same bytes. Where the step would run again now,
    the card says why.
    """
    from chainforge.model_card.write import model_card

    text = model_card(gather(find_checkpoint(checkpoint), repo, licence, base))
    if out is None:
        return show(text.rstrip("\n"))
    write_text(out, text)
    show(f"the card: {out}")


def gather(folder: Path, repo: str | None, licence: str | None, base: str | None) -> "Facts":
    """All that the card of a checkpoint tells."""
    from chainforge.cli.stale import why_stale
    from chainforge.config.loading import read_params
    from chainforge.model_card.lineage import line_of, lineage
    from chainforge.model_card.measured import measured
    from chainforge.model_card.write import Facts
    from chainforge.models.chat import opening
    from chainforge.pretrained import load_tokenizer
    from chainforge.project.graph import read_graph
    from chainforge.project.recorded import read_recorded
    from chainforge.response import tag_format

    recorded, graph = read_recorded(), read_graph()
    steps = lineage(folder, graph, recorded)
    run = recorded[steps[-1].name]["params"]["params.yaml"]["run"]
    changed = why_stale([step.name for step in steps])
    touched = any(line.startswith(f"{steps[-1].name}: {folder} ") for line in changed)  # by hand
    (own,) = (file.md5 for file in steps[-1].writes if file.path == folder.as_posix())
    form, config = tag_format(run["response_format"]), json.loads((folder / "config.json").read_bytes())
    tokenizer = load_tokenizer(folder)
    plugin = line_of(steps)[1]
    model = str(plugin.get("model", ""))
    return Facts(
        checkpoint=folder,
        steps=steps,
        measured=measured(folder.name, "" if touched else own, read_params().get("benches") or {}, recorded),
        run=run,
        form=form,
        prefill=form.prefill if opening_is_missing(tokenizer, opening(tokenizer, form)) else "",
        version=__version__,
        weights=count_weights(folder),
        config=config,
        note=" ".join(str((read_params().get("report") or {}).get("note") or "").split()),
        repo=repo or folder.name,
        licence=licence,
        base=base or hub_name(plugin),
        base_licence=licence_of(model) if model else None,
        changed=changed,
    )


def opening_is_missing(tokenizer: Any, opens: str) -> bool:
    """Whether the prompt must end with a tag that the chat template does not write."""
    from chainforge.models.chat import PROBE
    from chainforge.pretrained import render_chat

    return bool(opens) and not render_chat(tokenizer, PROBE).rstrip().endswith(opens)


def count_weights(folder: Path) -> int:
    """Of all tensors in its safetensors; only their headers are read."""
    from math import prod

    from safetensors import SafetensorError, safe_open

    count = 0
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, "pt") as tensors:
                count += sum(prod(tensors.get_slice(name).get_shape()) for name in tensors.keys())  # noqa: SIM118
        except SafetensorError as error:
            raise ChainForgeError(
                f"{path} is no whole safetensors file: {error}", "restore it: dvc checkout, or dvc repro"
            ) from None
    return count


def hub_name(plugin: Any) -> str | None:
    """The base model's name on the hub; None for a folder, and for a new model."""
    from chainforge.project.preflight.components import looks_like_path

    model = plugin.get("model")
    named = plugin.get("plugin") == "pretrained" and isinstance(model, str) and not Path(model).exists()
    return model if named and not looks_like_path(str(model)) else None


def licence_of(model: str) -> str | None:
    """What the base model's own card says, where it lies in its folder or in the hub's cache."""
    from huggingface_hub import ModelCard, try_to_load_from_cache

    found = Path(model, "README.md") if Path(model).is_dir() else try_to_load_from_cache(model, "README.md")
    if not isinstance(found, str | Path) or not Path(found).is_file():
        return None
    try:
        data = ModelCard(Path(found).read_text(encoding="utf-8"), ignore_metadata_errors=True).data.to_dict()  # type: ignore[no-untyped-call]
    except (ValueError, OSError):
        return None
    said = data.get("license_name") if data.get("license") == "other" else data.get("license")
    return str(said) if said else None
