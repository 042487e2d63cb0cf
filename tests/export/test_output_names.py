"""What an export and a run name files by themselves: visible, short enough, and another name for another class."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from kind_core.checkpoint import save_checkpoint
from kind_core.class_ids import parse_class_names
from kind_core.classes import ClassInfo
from kind_core.config import ModelConfig
from kind_core.console.commands import split_rows
from kind_export.blending import describe_openings
from kind_export.bundle.packs import pack_names
from kind_export.cli import main as kind_export
from kind_export.job import read_job
from kind_export.request import ExportRequest
from kind_export.targets.class_functions import name_functions
from kind_runtimes.bundle import open_bundle
from kind_runtimes.cli import main as kind_run
from kind_runtimes.packs import read_pack
from tiny import tiny_config, tiny_model, tiny_model_config

LONG = "long " * 50
NAMES = ("猫", "кот", "C++", "C#", "A", "a", "cat 1", "cat_1", LONG, "panda", "koala", "tench, Tinca tinca", "CON")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("named") / "checkpoint"
    model = tiny_model(tiny_config(num_classes=len(NAMES), depth=1))
    diffusion = tiny_model_config(noise_schedule="squaredcos_cap_v2", prediction_type="sample", steps=2).diffusion
    save_checkpoint(folder, ModelConfig(dit=model.config, diffusion=diffusion, classes=parse_class_names(NAMES)), model)
    return folder


def _output(checkpoint: Path, *classes: str, blend: str = "") -> str:
    blends = tuple(split_rows([blend] if blend else [], "+"))
    request = ExportRequest(classes=classes, blends=blends, targets=("onnx",), checkpoint=checkpoint)
    return str(read_job(request).output)


@pytest.mark.parametrize(
    ("classes", "name"),
    [
        (("panda",), "panda.kind"), (("panda", "koala"), "panda-koala.kind"), (("猫",), "猫.kind"),
        (("кот",), "кот.kind"), (("tench", "Tinca tinca"), "tench-tinca-tinca.kind"), (("CON",), "con_.kind"),
        (("猫", "кот", "panda", "koala", "A"), "猫-кот-panda-and-2-more.kind"),
    ],
)  # fmt: skip
def test_a_bundle_is_called_as_its_classes_were_asked_for(
    checkpoint: Path, classes: tuple[str, ...], name: str
) -> None:
    assert _output(checkpoint, *classes) == name


def test_every_class_and_every_blend_has_a_bundle_of_its_own(checkpoint: Path) -> None:
    names = [_output(checkpoint, name) for name in NAMES]
    names += [
        _output(checkpoint, "panda", "koala"),
        _output(checkpoint, blend="panda+koala"),
        _output(checkpoint, *NAMES),
    ]
    names += [
        _output(checkpoint, LONG, "panda"),
        _output(checkpoint, LONG, "koala"),
        _output(checkpoint, blend=f"{LONG}+A"),
        _output(checkpoint, blend='"C++"+panda'),
        _output(checkpoint, blend='"C++"+C#'),
    ]
    assert len({name.casefold() for name in names}) == len(names)
    for name in names:
        assert not name.startswith(".")
        assert len(name.encode()) <= 105
    assert _output(checkpoint, blend="panda+koala") == "panda+koala.kind"


def test_the_id_of_a_blend_is_its_own_and_short_enough() -> None:
    infos = parse_class_names(("A", "B", "A-B", LONG, f"{LONG}!", f"{LONG}?"))
    config = tiny_model_config(tiny_config(num_classes=4))
    config = replace(config, dit=replace(config.dit, num_classes=len(infos)), classes=infos)
    openings = [*((index,) for index in range(6)), (0, 1), (3, 4, 5), (3, 5, 4)]
    described = describe_openings(config, openings)
    assert described[:6] == infos
    assert len({info.id for info in described}) == len(openings)
    assert [info.name for info in described[6:7]] == ["A + B"]


def test_a_function_of_every_class_is_an_identifier_of_its_own() -> None:
    functions = list(name_functions([*parse_class_names(NAMES), ClassInfo(id="x", names=("class koala",))]).values())
    assert len(set(functions)) == len(NAMES) + 1
    assert all(name.isascii() and name.isidentifier() and len(name) <= 110 for name in functions), functions
    assert "panda" in functions


def test_packs_of_every_class_are_files_of_their_own() -> None:
    infos = parse_class_names(NAMES)
    assert len({name.casefold() for name in pack_names(infos)}) == len(NAMES)
    assert pack_names(infos[2:3]) == pack_names(infos[3:4]) == ["c.pack"]
    assert pack_names(infos[3:4], {"c.pack": infos[2].id}) != ["c.pack"]
    assert pack_names(infos[2:3], {"c.pack": infos[2].id}) == ["c.pack"]


def test_packs_and_pictures_of_classes_in_any_alphabet(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    common = ["--checkpoint", str(checkpoint), "--packs"]
    for options in (["--classes", "猫,C++", "--target", "onnx"], ["--classes", "C#", "--base", "base.kind"]):
        done = CliRunner().invoke(kind_export, [*common, *options])
        assert done.exit_code == 0, done.output
    bundle = open_bundle(Path("base.kind"))
    assert [pack.file for pack in bundle.manifest.packs] == ["packs/猫.pack", "packs/c.pack"]
    held = {read_pack(file).info.name: file for file in Path("base.kind/packs").iterdir()}
    assert held.keys() == {"猫", "C++", "C#"}, "a pack added later replaced one of another class"
    for options in (["--class", "猫"], ["--class", "C++"], ["--pack", str(held["C#"])]):
        done = CliRunner().invoke(kind_run, ["base.kind", *options])
        assert done.exit_code == 0, done.output
    assert len(sorted(tmp_path.glob("*.png"))) == 3
    assert (tmp_path / "猫.png").exists()
