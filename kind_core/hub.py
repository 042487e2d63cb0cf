"""Checkpoints of the Hugging Face Hub: a repository has the layout of a checkpoint folder.

`hub:ORG/NAME` or `hub:ORG/NAME@REVISION` stands for a folder wherever a command asks for one; without `hub:` it is a
path on this machine and nothing else, so that a slip loads nobody's weights. `from_pretrained` also takes bare names,
as elsewhere in Python. Of its tailors only those of the asked classes are downloaded, all files of one commit.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kind_core.checkpoint_config import AUTOENCODER_FILES, CONFIG_NAME, LEARNGENE_NAME, TAILORS_NAME, read_config
from kind_core.class_ids import choose_classes
from kind_core.classes import ClassInfo, resolve_classes
from kind_core.errors import CheckpointError
from kind_core.files.near_paths import suggest_path

if TYPE_CHECKING:
    from kind_core.checkpoint import Checkpoint

CARD_NAME = "README.md"
HUB_PREFIX = "hub:"
_NAME = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+?)(?:@(?P<revision>[\w./-]+))?")
# What a DiT pipeline of diffusers is made of.
_DIFFUSERS_SETTINGS = ("model_index.json", "config.json", "*/config.json", "scheduler/*")
_DIFFUSERS_FILES = (*_DIFFUSERS_SETTINGS, "transformer/*", "vae/*", "*.safetensors")


def find_checkpoint(
    path: Path, classes: Sequence[str] | Sequence[ClassInfo] | None = None, *, with_decoder: bool = True, **options: Any
) -> Path:
    """The folder `path`, or for `hub:ORG/NAME` the one that the Hub has under that name, downloaded.

    `classes` are those whose tailors are needed, as typed or as its config has them, all by default; `with_decoder`: a
    model of latents comes with its autoencoder; `options` are those of `from_pretrained`.
    Raises CheckpointError, also for a class that is not there.
    """
    name = parse_name(path)
    if name is None:
        return path
    fetch = _fetcher(name["repo"], name["revision"], options)
    folder = fetch(CONFIG_NAME).parent
    # the folder is named by the commit: whatever is pushed meanwhile, all files are of this one
    fetch = _fetcher(name["repo"], folder.name, options)
    config = read_config(folder)
    known = config.classes
    chosen = known if classes is None else [known[index] for index in choose_classes(classes, known)]
    autoencoder = AUTOENCODER_FILES if config.autoencoder is not None and with_decoder else ()
    for file in (LEARNGENE_NAME, *(f"{TAILORS_NAME}/{info.id}.safetensors" for info in chosen), *autoencoder):
        fetch(file)
    return folder


def find_config(path: Path, **options: Any) -> Path:
    """The same with `config.json` alone."""
    name = parse_name(path)
    if name is None:
        return path
    return _fetcher(name["repo"], name["revision"], options)(CONFIG_NAME).parent


def find_diffusers(path: Path, *, is_whole: bool = True) -> Path:
    """The folder `path`, or for `hub:ORG/NAME` the DiT pipeline of the Hub, whole or its settings alone."""
    name = parse_name(path)
    if name is None:
        return path
    from huggingface_hub import snapshot_download

    repo, revision = name["repo"], name["revision"]
    patterns = list(_DIFFUSERS_FILES if is_whole else _DIFFUSERS_SETTINGS)
    return Path(_call(repo, "", lambda: snapshot_download(repo, revision=revision, allow_patterns=patterns)))


def parse_name(path: Path) -> re.Match[str] | None:
    """`repo` and `revision` of `hub:ORG/NAME@REVISION`; None for a path that is there.

    Raises CheckpointError for a path that is not, and for what names nothing on the Hub.
    """
    text = path.as_posix()
    if text.startswith(HUB_PREFIX):
        name = _NAME.fullmatch(text.removeprefix(HUB_PREFIX))
        if name is None:
            raise CheckpointError(f"{text} names no model of the Hub", f"write {HUB_PREFIX}ORG/NAME or ...@REVISION")
        return name
    if path.exists():
        return None
    hint = f"for a model of the Hub write {HUB_PREFIX}{text}" if _NAME.fullmatch(text) else "check the path"
    raise CheckpointError(f"there is no folder {text}", f"{hint}{suggest_path(path)}")


def from_pretrained(name_or_path: str | Path, classes: Sequence[str] | None = None, **options: Any) -> Checkpoint:
    """Load a checkpoint from a folder or the Hub, with the classes of these names or ids, all by default.

    `options` are huggingface_hub's: revision, token, cache_dir, local_files_only, force_download.
    """
    from kind_core.checkpoint import load_checkpoint

    revision, path = options.pop("revision", None), Path(name_or_path)
    if not path.exists() and _NAME.fullmatch(path.as_posix().removeprefix(HUB_PREFIX)):
        path = Path(f"{HUB_PREFIX}{path.as_posix().removeprefix(HUB_PREFIX)}{f'@{revision}' if revision else ''}")
    folder = find_checkpoint(path, classes, **options)
    known = read_config(folder).classes
    return load_checkpoint(folder, None if classes is None else [c.index for c in resolve_classes(classes, known)])


def push_to_hub(
    checkpoint: Checkpoint,
    repo_id: str,
    *,
    evaluation: Mapping[str, object] | None = None,
    commit_message: str = "Upload checkpoint",
    private: bool | None = None,
    token: str | bool | None = None,
    revision: str | None = None,
    create_pr: bool = False,
) -> str:
    """Upload a checkpoint with its model card, making the repository where there is none; returns its address.

    `evaluation` is what `kind-train evaluate -o` wrote: the figures of the card.
    """
    from huggingface_hub import HfApi

    from kind_core.model_card import render_card

    api = HfApi(token=token)
    with tempfile.TemporaryDirectory() as holder:
        folder = Path(holder) / "checkpoint"
        checkpoint.save_pretrained(folder)
        (folder / CARD_NAME).write_text(render_card(checkpoint, repo_id, evaluation), encoding="utf-8")

        def upload() -> str:
            made = api.create_repo(repo_id, private=private, exist_ok=True)
            api.upload_folder(
                repo_id=made.repo_id,
                folder_path=folder,
                commit_message=commit_message,
                revision=revision,
                create_pr=create_pr,
            )
            return str(made)

        return _call(repo_id, "", upload)


def _fetcher(repo: str, revision: str | None, options: dict[str, Any]) -> Callable[[str], Path]:
    from huggingface_hub import hf_hub_download

    def fetch(file: str) -> Path:
        return Path(_call(repo, file, lambda: hf_hub_download(repo, file, revision=revision, **options)))

    return fetch


def _call(repo: str, file: str, request: Callable[[], str]) -> str:
    """What `request` returns; CheckpointError where the Hub or the network refuses."""
    from huggingface_hub import errors

    what = f"{file} of {repo}" if file else repo
    try:
        return request()
    except errors.GatedRepoError as error:
        hint = "accept its terms on its page, then log in with `hf auth login`"
        raise CheckpointError(f"{repo} on the Hub is gated", hint) from error
    except errors.RepositoryNotFoundError as error:
        hint = "check the spelling; for a private one log in with `hf auth login`"
        raise CheckpointError(f"there is no model {repo} on the Hub", hint) from error
    except errors.RevisionNotFoundError as error:
        raise CheckpointError(f"{repo} on the Hub has no such revision", "name a branch, tag or commit") from error
    except errors.LocalEntryNotFoundError as error:
        message = f"the Hub gives no answer about {what}, which is not in its cache"
        raise CheckpointError(message, "check the network and HF_HUB_OFFLINE") from error
    except errors.EntryNotFoundError as error:
        raise CheckpointError(f"{repo} on the Hub has no {file}", "is it a checkpoint of this project?") from error
    except (errors.HTTPError, ValueError, OSError) as error:  # type: ignore[attr-defined]  # httpx's, imported there
        reason = " ".join(str(error).split())
        raise CheckpointError(f"the Hub refuses {what}: {reason}", "try again later, or download it by hand") from error
