"""Checkpoints of the Hub: a fake one on this machine serves files, so what is downloaded is seen."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import huggingface_hub
import pytest
import torch
import yaml

from diffusers_folders import write_folder
from kind_core.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from kind_core.config import ModelConfig, Provenance
from kind_core.dit import KindDiT
from kind_core.errors import CheckpointError, ClassNameError
from kind_core.hub import find_checkpoint, find_config, find_diffusers
from kind_core.model_card import render_card
from tiny import CLASSES

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class FakeHub:
    """Serves the folders of `repos` as the Hub does, at the revisions main, v1 and COMMIT; `given` is what it gave."""

    def __init__(self) -> None:
        self.repos: dict[str, Path] = {}
        self.given: list[str] = []

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(handler) -> None:  # noqa: N805
                self._answer(handler, send=False)

            def do_GET(handler) -> None:  # noqa: N805
                self._answer(handler, send=True)

            def log_message(handler, *args: Any) -> None:  # noqa: N805
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        Thread(target=self.server.serve_forever, daemon=True).start()
        self.options: dict[str, Any] = {"endpoint": f"http://127.0.0.1:{self.server.server_port}"}

    def _answer(self, handler: BaseHTTPRequestHandler, *, send: bool) -> None:
        owner, name, _, revision, *rest = [*handler.path.strip("/").split("/"), "", "", ""]
        repo, path = f"{owner}/{name}", "/".join(part for part in rest if part)
        folder = self.repos.get(repo)
        error = (
            "RepoNotFound" if folder is None else "RevisionNotFound" if revision not in ("main", "v1", COMMIT) else ""
        )
        file = (folder or Path()) / path
        if not error and not file.is_file():
            error = "EntryNotFound"
        handler.send_response(404 if error else 200)
        handler.send_header("X-Repo-Commit", COMMIT)
        if error:
            handler.send_header("X-Error-Code", error)
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return
        content = file.read_bytes()
        handler.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        if send:
            self.given.append(path)
            handler.wfile.write(content)


@pytest.fixture
def fake_hub(tmp_path: Path, checkpoint_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    fake = FakeHub()
    fake.repos["org/model"] = checkpoint_path
    fake.options["cache_dir"] = tmp_path / "cache"
    monkeypatch.chdir(tmp_path)
    yield fake
    fake.server.shutdown()


def test_only_the_asked_tailors_are_downloaded(fake_hub: FakeHub, model: KindDiT, tmp_path: Path) -> None:
    checkpoint = Checkpoint.from_pretrained("org/model", classes=["lemon"], **fake_hub.options)
    assert sorted(fake_hub.given) == ["config.json", "learngene.safetensors", f"tailors/{CLASSES[2].id}.safetensors"]
    assert [info.name for info in checkpoint.config.classes] == ["lemon"]
    assert torch.equal(checkpoint.model.tailors.weight[0], model.tailors.weight[2])
    again = Checkpoint.from_pretrained("org/model", classes=["lemon", "red panda"], **fake_hub.options)
    assert fake_hub.given[3:] == [f"tailors/{CLASSES[1].id}.safetensors"]
    assert again.model.config.num_classes == 2


def test_all_files_are_of_one_revision(fake_hub: FakeHub, tmp_path: Path) -> None:
    folder = find_checkpoint(Path("hub:org/model@v1"), ["seashore"], **fake_hub.options)
    assert folder.name == COMMIT
    assert load_checkpoint(folder, [3]).config.classes == (CLASSES[3],)
    pinned = Checkpoint.from_pretrained("org/model", ["seashore"], revision="v1", **fake_hub.options)
    assert pinned.config.classes == (CLASSES[3],)
    with pytest.raises(CheckpointError, match="has no such revision"):
        find_checkpoint(Path("hub:org/model@v2"), **fake_hub.options)


def test_what_is_cached_needs_no_network(fake_hub: FakeHub, tmp_path: Path) -> None:
    find_checkpoint(Path("hub:org/model"), ["lemon"], **fake_hub.options)
    fake_hub.repos.clear()
    offline = {**fake_hub.options, "local_files_only": True}
    assert Checkpoint.from_pretrained("org/model", ["lemon"], **offline).model.config.num_classes == 1
    with pytest.raises(CheckpointError, match="not in its cache"):
        Checkpoint.from_pretrained("org/model", ["seashore"], **offline)


def test_a_folder_comes_before_the_hub(fake_hub: FakeHub, checkpoint_path: Path) -> None:
    fake_hub.repos.clear()
    assert find_checkpoint(checkpoint_path) == checkpoint_path
    assert Checkpoint.from_pretrained(checkpoint_path, classes=["lemon"]).config.classes == (CLASSES[2],)
    assert fake_hub.given == []


@pytest.mark.parametrize("find", [find_checkpoint, find_config, find_diffusers])
@pytest.mark.parametrize("path", ["org/model", "rn/best", "rn/best@v1", "run/bset", "/no/such/folder", "hub"])
def test_a_path_is_never_looked_up_on_the_hub(
    find: Callable[[Path], Path], path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: Any, **options: Any) -> None:
        raise AssertionError(f"the Hub was asked for {args}")

    for name in ("hf_hub_download", "snapshot_download"):
        monkeypatch.setattr(huggingface_hub, name, refuse)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run" / "best").mkdir(parents=True)
    with pytest.raises(CheckpointError, match=f"there is no folder {path}") as caught:
        find(Path(path))
    is_name = path.count("/") == 1
    assert (f"hub:{path}" in (caught.value.hint or "")) == is_name
    assert ("did you mean run/best?" in (caught.value.hint or "")) == (path in ("rn/best", "rn/best@v1", "run/bset"))


def test_a_name_of_the_hub_that_names_nothing_is_refused() -> None:
    with pytest.raises(CheckpointError, match="hub:model names no model of the Hub"):
        find_config(Path("hub:model"))


def test_what_the_hub_does_not_have_is_said(fake_hub: FakeHub, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="there is no model org/other on the Hub"):
        find_checkpoint(Path("hub:org/other"), **fake_hub.options)
    with pytest.raises(ClassNameError, match="unknown class 'tiger'"):
        find_checkpoint(Path("hub:org/model"), ["tiger"], **fake_hub.options)
    (fake_hub.repos["org/model"] / "learngene.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"org/model on the Hub has no learngene\.safetensors"):
        find_checkpoint(Path("hub:org/model"), ["lemon"], **fake_hub.options)


def test_classes_are_known_from_the_config_alone(fake_hub: FakeHub) -> None:
    assert (find_config(Path("hub:org/model"), **fake_hub.options) / "config.json").is_file()
    assert fake_hub.given == ["config.json"]


def test_a_pipeline_of_diffusers_is_downloaded_without_what_is_not_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: dict[str, Any] = {}

    def snapshot(repo: str, **options: Any) -> str:
        asked.update(repo=repo, **options)
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    assert find_diffusers(Path("hub:org/dit@v1")) == tmp_path
    assert (asked["repo"], asked["revision"]) == ("org/dit", "v1")
    assert "transformer/*" in asked["allow_patterns"]
    find_diffusers(Path("hub:org/dit"), is_whole=False)
    assert "transformer/*" not in asked["allow_patterns"]
    write_folder(tmp_path / "here")
    assert find_diffusers(tmp_path / "here") == tmp_path / "here"


def test_saving_and_loading_gives_the_same_model(checkpoint_path: Path, tmp_path: Path) -> None:
    checkpoint = load_checkpoint(checkpoint_path)
    checkpoint.save_pretrained(tmp_path / "saved")
    again = Checkpoint.from_pretrained(tmp_path / "saved")
    assert (again.config, again.sha256) == (checkpoint.config, checkpoint.sha256)


class FakeApi:
    """What `push_to_hub` calls; keeps the uploaded files."""

    def __init__(self, token: str | None = None) -> None:
        self.token = token

    def create_repo(self, repo_id: str, *, private: bool | None, exist_ok: bool) -> Any:
        uploads.update(repo_id=repo_id, private=private)
        return type("Url", (str,), {"repo_id": repo_id})(f"https://hub/{repo_id}")

    def upload_folder(self, *, repo_id: str, folder_path: Path, **options: Any) -> None:
        files = (file for file in Path(folder_path).rglob("*") if file.is_file())
        uploads.update(files={file.relative_to(folder_path).as_posix(): file.read_bytes() for file in files}, **options)


uploads: dict[str, Any] = {}


def test_a_push_uploads_the_checkpoint_and_its_card(
    model: KindDiT, model_config: ModelConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(huggingface_hub, "HfApi", FakeApi)
    provenance = Provenance(author="A. Uthor", licence="cc-by-nc-4.0", data="4,650 photos of Tiny-ImageNet")
    config = replace(model_config, provenance=provenance)
    save_checkpoint(tmp_path / "saved", config, model)
    checkpoint = load_checkpoint(tmp_path / "saved")
    checkpoint.save_pretrained(tmp_path / "again", push_to_hub=True, repo_id="org/model", private=True)
    assert (uploads["repo_id"], uploads["private"]) == ("org/model", True)
    expected = {file.relative_to(tmp_path / "saved").as_posix() for file in (tmp_path / "saved").rglob("*.*")}
    assert set(uploads["files"]) == expected | {"README.md"}
    card = uploads["files"]["README.md"].decode()
    _, front, body = card.split("---\n", 2)
    assert yaml.safe_load(front)["license"] == "cc-by-nc-4.0"
    for text in (
        "# org/model",
        "giant panda, lesser panda, lemon, seashore",
        "A. Uthor",
        "4,650 photos",
        "Nothing yet",
    ):
        assert text in body


def test_the_card_shows_what_was_measured(checkpoint_path: Path) -> None:
    share, distance = {"share": 0.65}, {"distance": 178.6, "n": 100}
    evaluation = {
        "steps": 20, "sampler": "dpmpp", "guidance_scale": 2.5, "checkpoint_sha256": "ab" * 32,
        "classes": [
            {
                "name": "goldfish", "generated_share": share, "real_share": share, "distance": distance,
                "floor": distance,
            },
        ],
        "overall": distance, "overall_floor": distance,
    }  # fmt: skip
    card = render_card(load_checkpoint(checkpoint_path), "org/model", evaluation)
    assert "| goldfish | 65% | 65% | 179 | 179 | 100 |" in card
    assert "license" not in yaml.safe_load(card.split("---\n")[1])
    assert "not stated" in card


def test_a_licence_in_words_is_another_one(checkpoint_path: Path, tmp_path: Path) -> None:
    checkpoint = load_checkpoint(checkpoint_path)
    config = replace(checkpoint.config, provenance=Provenance(licence="Research and evaluation only"))
    front = yaml.safe_load(render_card(replace(checkpoint, config=config), "org/model").split("---\n")[1])
    assert (front["license"], front["license_name"]) == ("other", "see-model-card")


def test_a_network_that_fails_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match=r"the Hub gives no answer about config\.json of org/model"):
        find_checkpoint(Path("hub:org/model"), cache_dir=tmp_path / "cache", endpoint="http://127.0.0.1:9")
