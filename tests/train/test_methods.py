"""The ways of adapting that need no other package: start, merged weights, counts, resume, refusals."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from tiny_training import TINY_DIFFUSION, TINY_DIT, make_config, make_photos, write_folder
from torch import Tensor

from kind_core.checkpoint import load_checkpoint, read_config, save_checkpoint
from kind_core.config import DiTConfig, ModelConfig, preset
from kind_core.costs.methods import dense_twin, find_cost
from kind_core.dit import KindDiT
from kind_core.errors import ConfigError, TargetError
from kind_export.pipeline import export_bundle
from kind_export.request import ExportRequest
from kind_train.cli import main
from kind_train.config import METHODS
from kind_train.methods import open_method
from kind_train.run.trainer import Trainer
from tiny import CLASSES, tiny_batch, tiny_model

pytestmark = pytest.mark.usefixtures("one_thread")

OWN = ("tailors", "full-ft", "svdiff", "fact-tt", "svd-lora", "learngene-lora", "open-tailors", "heur-lg", "auto-lg")
PEFT = tuple(name for name in METHODS if name not in OWN)
NULL = torch.full((3,), -1)


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Path]:
    """A random dense base and a decomposed one, by whether they are dense."""
    folder = tmp_path_factory.mktemp("bases")
    for is_dense in (True, False):
        dit = replace(dense_twin(TINY_DIT) if is_dense else TINY_DIT, depth=4)
        config = ModelConfig(dit=dit, diffusion=TINY_DIFFUSION, classes=CLASSES[:3])
        save_checkpoint(folder / str(is_dense), config, tiny_model(dit, seed=5))  # not the trainer's
    return {is_dense: folder / str(is_dense) for is_dense in (True, False)}


def start(name: str, bases: dict[bool, Path], output: Path, *, resume: bool = False, **options: Any) -> Trainer:
    method = open_method(name)
    given = {"method": name, "base": str(bases[method.needs_dense]), "label_dropout": method.label_dropout,
             "tailor_rank": 2, **options}  # fmt: skip
    return Trainer(make_config(output, **given), make_photos(), make_photos(seed=1), resume=resume)


@torch.no_grad()
def answer(model: KindDiT, labels: Tensor = NULL) -> Tensor:
    return model(*tiny_batch(model.config, 3), labels, labels)  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", [name for name in OWN if name not in ("svd-lora", "heur-lg", "auto-lg")])
def test_a_method_starts_as_its_base(name: str, bases: dict[bool, Path], tmp_path: Path) -> None:
    trainer = start(name, bases, tmp_path / "run")
    base = load_checkpoint(bases[trainer.method.needs_dense]).model  # type: ignore[union-attr]
    torch.testing.assert_close(answer(trainer.model), answer(base), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", OWN)
def test_merged_weights_are_the_adapted_model(name: str, bases: dict[bool, Path], tmp_path: Path) -> None:
    trainer = start(name, bases, tmp_path / "run", ema_decay=1e-6, images=16)
    trainer.run()
    adapted = answer(trainer.model, torch.arange(3))
    checkpoint = load_checkpoint(tmp_path / "run" / "best", list(range(-3, 0)))
    torch.testing.assert_close(answer(checkpoint.model, torch.arange(3)), adapted, rtol=1e-4, atol=1e-5)
    start_again = start(name, bases, tmp_path / "other", ema_decay=1e-6, images=16)
    assert not torch.allclose(answer(start_again.model, torch.arange(3)), adapted, atol=1e-3)  # it has learnt something


@pytest.mark.parametrize("name", ["svdiff", "open-tailors"])
def test_merged_weights_pass_an_export(name: str, bases: dict[bool, Path], tmp_path: Path) -> None:
    """A dense checkpoint and a decomposed one without tailors, as any other."""
    start(name, bases, tmp_path / "run", ema_decay=1e-6, images=16).run()
    request = ExportRequest(
        checkpoint=tmp_path / "run" / "best", classes=("class_1",), targets=("onnx",), output=tmp_path / "one.kind"
    )
    parity = export_bundle(request).manifest.data["targets"]["onnx"]["parity"]
    assert parity["trajectory_psnr_db"] >= parity["threshold_db"] >= 60


@pytest.mark.parametrize("name", OWN)
def test_trained_parameters_are_those_counted(name: str, bases: dict[bool, Path], tmp_path: Path) -> None:
    trainer = start(name, bases, tmp_path / "run")
    method, base = open_method(name), read_config(bases[open_method(name).needs_dense]).dit
    counted = find_cost(name).trained(method.plan(base, 2), 3)
    assert sum(p.numel() for p in trainer.model.parameters() if p.requires_grad) == counted
    assert find_cost(name).flops(method.plan(base, 2), 3) > 0


@pytest.mark.parametrize(("name", "size"), [(name, size) for name in OWN for size in ("b", "l")])
def test_counts_hold_at_the_papers_size(name: str, size: str) -> None:
    """The model itself, on no device, of a task of 7 classes."""
    method = open_method(name)
    kind = replace(preset(f"kind-{size}/2")[0], num_classes=7)
    base = dense_twin(kind) if method.needs_dense else kind
    plan = method.plan(base, None)
    with torch.device("meta"):
        model = KindDiT(method.shape(plan))
        method.prepare(model, plan)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert trained == find_cost(name).trained(kind, 7)


@pytest.mark.parametrize("name", ["svdiff", "fact-tt", "open-tailors", "svd-lora"])
def test_an_adaptation_resumes_where_it_was(name: str, bases: dict[bool, Path], tmp_path: Path) -> None:
    whole = start(name, bases, tmp_path / "whole", images=24)
    whole.run()
    start(name, bases, tmp_path / "half", images=12).run()
    resumed = start(name, bases, tmp_path / "half", images=24, resume=True)
    assert resumed.step == 3
    resumed.run()
    for key, value in whole.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[key], value), key
    other = "svdiff" if name == "fact-tt" else "full-ft"
    with pytest.raises(ConfigError, match=r"was trained with (base|method) .*not"):
        start(other, bases, tmp_path / "half", images=24, resume=True)


def test_inherited_blocks_are_those_of_the_base_and_the_others_are_not(bases: dict[bool, Path], tmp_path: Path) -> None:
    base = load_checkpoint(bases[True]).model.state_dict()
    for name, inherited in (("heur-lg", {3}), ("auto-lg", {0, 1})):
        model = start(name, bases, tmp_path / name).model
        kept = {i for i in range(4) if torch.equal(model.state_dict()[f"blocks.{i}.mlp.up.weight"],
                                                   base[f"blocks.{i}.mlp.up.weight"])}  # fmt: skip
        assert kept == inherited
        assert torch.equal(model.state_dict()["patch_embedding.weight"], base["patch_embedding.weight"])


def test_random_triplets_are_as_many_as_a_learngene_has(bases: dict[bool, Path], tmp_path: Path) -> None:
    trainer = start("svd-lora", bases, tmp_path / "run")
    rank = trainer.model.config.learngene_rank
    assert rank == round(32 * 0.414)
    weight = load_checkpoint(bases[True]).model.blocks[0].attn.q.weight  # type: ignore[union-attr]
    layer = trainer.model.blocks[0].attn.q  # type: ignore[union-attr]
    _, s, _ = torch.linalg.svd(weight)
    kept = {int((s - value).abs().argmin()) for value in layer.kept["s"]}
    assert len(kept) == rank
    assert kept != set(range(rank))  # not the largest


@pytest.mark.parametrize("name", ["full-ft", "tailors", "svdiff"])
def test_a_base_of_the_other_kind_is_refused(name: str, bases: dict[bool, Path], tmp_path: Path) -> None:
    needs_dense = open_method(name).needs_dense
    has, wants = ("decomposed", "dense") if needs_dense else ("dense", "decomposed")
    with pytest.raises(ConfigError, match=f"is {has}, method '{name}' starts from a {wants} base"):
        start(name, {needs_dense: bases[not needs_dense]}, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", PEFT)
def test_a_method_of_peft_says_what_is_missing(
    name: str, bases: dict[bool, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "peft", None)
    with pytest.raises(TargetError, match=f"method '{name}' needs peft") as caught:
        start(name, bases, tmp_path / "run")
    assert caught.value.hint == "pip install 'kind-diffusion[benchmark]'"


def test_options_that_do_not_go_together_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="method is 'lorra', expected one of tailors, full-ft, lora"):
        make_config(tmp_path, base="base", method="lorra")
    with pytest.raises(ConfigError, match="method is 'svdiff', expected 'tailors' without a base"):
        make_config(tmp_path, method="svdiff")
    with pytest.raises(ConfigError, match="init_from is 'lemon', expected none where method is 'svdiff'"):
        make_config(tmp_path, base="base", method="svdiff", init_from="lemon")


def test_from_photos_to_svdiff_on_the_command_line(bases: dict[bool, Path], tmp_path: Path) -> None:
    write_folder(tmp_path / "photos", make_photos(12))
    fast = ("--batch-size", "4", "--images", "8", "--device", "cpu", "--method", "svdiff")
    given = ("--checkpoint", str(bases[True]), "--data", str(tmp_path / "photos"), "--output", str(tmp_path / "run"))
    result = CliRunner().invoke(main, ["adapt", *given, *fast])
    assert result.exit_code == 0, result.output
    options = (tmp_path / "run" / "options.yaml").read_text().splitlines()
    assert {"method: svdiff", "learning_rate: 0.005", "label_dropout: 0.1"} <= set(options)
    assert [info.id for info in read_config(tmp_path / "run" / "best").classes] == ["class_0", "class_1", "class_2"]


def test_rates_are_those_of_the_paper() -> None:
    base, large = (preset(f"dit-{size}/2")[0] for size in "bl")
    rates = {name: open_method(name).learning_rate(base) for name in METHODS}
    assert {name for name, rate in rates.items() if rate == 1e-4} == {"full-ft", "oft", "boft", "heur-lg", "auto-lg"}
    assert (rates["svdiff"], open_method("svdiff").learning_rate(large)) == (5e-3, 3e-3)
    assert isinstance(base, DiTConfig)
