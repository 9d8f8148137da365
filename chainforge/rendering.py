"""Templates as every page and card of ChainForge reads them, and what a page may load: nothing."""

import base64
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2 import Environment


def page_templates(folder: Path, *filters: Callable[..., Any]) -> "Environment":
    """For HTML: what is filled in is shown, never obeyed. Filters go by their functions' names."""
    return _templates(folder, filters, escape=True)


def text_templates(folder: Path, *filters: Callable[..., Any]) -> "Environment":
    """For Markdown and the like: nothing is escaped, so a filter has to see to what comes from outside."""
    return _templates(folder, filters, escape=False)


def content_policy(script: str, *more: str) -> str:
    """A page's Content-Security-Policy: nothing from outside, and of scripts this one alone.

    Figures and bars are placed by style attributes, which no hash can name. `more` are directives besides.
    """
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    parts = ("default-src 'none'", f"script-src 'sha256-{digest}'", "style-src 'unsafe-inline'", *more)
    return "; ".join((*parts, "base-uri 'none'", "form-action 'none'"))


def _templates(folder: Path, filters: tuple[Callable[..., Any], ...], *, escape: bool) -> "Environment":
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    templates = Environment(
        loader=FileSystemLoader(folder),
        autoescape=escape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    templates.filters.update({function.__name__: function for function in filters})
    return templates
