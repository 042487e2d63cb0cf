"""The model card of a checkpoint: what it is, its data and licence, how to use it, and what was measured."""

from __future__ import annotations

import html
import json
import re
import shlex
from collections.abc import Mapping
from importlib.resources import files

from kind_core.checkpoint import Checkpoint
from kind_core.console import clean
from kind_core.flops import count_parameters

_MARKUP = re.compile(r"[\\`*_\[\]|~#]")  # of Markdown inside a line; `html.escape` sees to < > and &
_PLAIN_ID = re.compile(r"[\w.-]+")
_LICENCE_ID = re.compile(r"[a-z0-9][a-z0-9.-]*")  # as the Hub knows them: apache-2.0, cc-by-nc-4.0, other


def escape_markdown(text: str) -> str:
    """Text in one line that Markdown, and the HTML in it, shows as it is."""
    return _MARKUP.sub(r"\\\g<0>", html.escape(clean(text), quote=False))


def quote_for_shell(text: str) -> str:
    """Text as one word of a command, in the card's double quotes where it is plain."""
    return f'"{text}"' if _PLAIN_ID.fullmatch(text) else shlex.quote(clean(text))


def render_card(checkpoint: Checkpoint, title: str, evaluation: Mapping[str, object] | None = None) -> str:
    """Markdown with the front matter of the Hub. `evaluation`: the JSON of `kind-train evaluate`."""
    from huggingface_hub import ModelCard, ModelCardData

    config = checkpoint.config
    licence = config.provenance.licence
    is_known = bool(_LICENCE_ID.fullmatch(licence))
    data = ModelCardData(
        license=licence if is_known else "other" if licence else None,
        license_name=None if is_known or not licence else "see-model-card",
        library_name="kind-diffusion",
        pipeline_tag="unconditional-image-generation",
        tags=["diffusion", "dit", "kind", "on-device"],
    )
    card = ModelCard.from_template(
        data,
        template_str=(files("kind_core") / "data" / "model_card.md").read_text(encoding="utf-8"),
        title=title,
        text=escape_markdown,
        address=shlex.quote(clean(title)),
        word=quote_for_shell,
        literal=lambda one: json.dumps(one, ensure_ascii=not _PLAIN_ID.fullmatch(one)),
        config=config,
        num_parameters=count_parameters(config.dit).total,
        unit="pixels" if config.dit.in_channels == 3 and config.autoencoder is None else "latents",
        evaluation=evaluation,
    )
    return str(card)
