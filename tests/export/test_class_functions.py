"""Core ML packages with a function a class: each draws its own class, and the learngene is there once."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from kind_core.checkpoint import load_checkpoint, save_checkpoint
from kind_core.classes import ClassInfo
from kind_core.closeness import psnr_db
from kind_core.config import DiffusionConfig
from kind_core.errors import BundleError, ConfigError, VerificationError
from kind_core.samplers import Sampling
from kind_core.schedule import read_sampler_table
from kind_export.compact.model import CompactModel
from kind_export.compact.step import GraphStyle, StepProgram
from kind_export.pipeline import ExportResult, export_bundle
from kind_export.request import ExportRequest
from kind_export.rewrites import RewriteOptions, rewrite
from kind_export.rewrites.compose_gates import compose_gates
from kind_export.rewrites.pick_class import pick_class
from kind_export.targets import class_functions
from kind_export.targets.class_functions import ClassStep, name_functions
from kind_export.verify.reference import Reference
from kind_runtimes.bundle import open_bundle
from kind_runtimes.engines.coreml import EvaluatedProgram
from kind_runtimes.generator import Generator, open_generator
from kind_runtimes.manifest import ProgramSpec, check_schema
from tiny import tiny_config, tiny_model, tiny_model_config

STEPS, GUIDANCE = 3, 2.0
_FUNCTIONS = ["giant_panda", "lemon", "giant_panda_lemon"]
_MODELS: dict[str, dict[str, Any]] = {
    "factored": {},
    "dense matrices": {"learngene_rank": 28},
    "ranks by class": {"tailor_ranks": (3, 1, 2, 2)},
    "no learngene": {"learngene_rank": None, "tailor_rank": 0},
}
Export = Callable[..., ExportResult]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Wide enough for the learngene to outweigh tailors and tables."""
    path = tmp_path_factory.mktemp("functions") / "model"
    dit = tiny_config(depth=1, hidden_size=96, learngene_rank=40)
    config = tiny_model_config(dit, noise_schedule="squaredcos_cap_v2", prediction_type="sample", sampler="dpmpp")
    save_checkpoint(path, config, tiny_model(dit))
    return path


@pytest.fixture(scope="module")
def export(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Export:
    def run(folder: Path | None = None, **options: Any) -> ExportResult:
        output = (folder or tmp_path_factory.mktemp("out")) / "some.kind"
        given: dict[str, Any] = {"classes": ("giant panda", "lemon"), "blends": (("giant panda", "lemon"),)}
        given |= {"targets": ("coreml",), "min_ios": 18, "class_functions": True, "steps": STEPS, "guidance": GUIDANCE}
        return export_bundle(ExportRequest(checkpoint=checkpoint, output=output, **(given | options)))

    return run


@pytest.fixture(scope="module")
def result(export: Export) -> ExportResult:
    return export()


def _open(result: ExportResult) -> Generator:
    bundle = open_bundle(result.path)
    return open_generator(bundle.path, bundle.manifest, "coreml")


def _weight_bytes(result: ExportResult) -> int:
    return next((result.path / "coreml" / "step.mlpackage").rglob("weight.bin")).stat().st_size


@pytest.mark.slow
def test_manifest_names_the_function_of_each_class(result: ExportResult) -> None:
    data = json.loads((result.path / "manifest.json").read_text())
    check_schema(data, "manifest", "manifest.json")
    step = data["targets"]["coreml"]["programs"]["step"]
    assert step["class_functions"] == dict(zip((c["id"] for c in data["classes"]), _FUNCTIONS, strict=True))
    assert "function" not in step
    assert [spec["name"] for spec in step["inputs"]] == ["latents", "history", "step_index", "guidance"]
    assert data["targets"]["coreml"]["parity"]["num_classes"] == 3


@pytest.mark.slow
@pytest.mark.parametrize("index", range(3))
def test_each_function_draws_its_class(index: int, result: ExportResult, checkpoint: Path) -> None:
    source, openings = load_checkpoint(checkpoint, [0, 2]), ((0,), (1,), (0, 1))
    reference = Reference(
        checkpoint=source, sampling=Sampling(sampler="dpmpp", steps=STEPS, guidance_scale=GUIDANCE), openings=openings
    )
    *_, actual = _open(result).trajectory(reference.run(0).noise, index)
    for other in range(3):
        measured = psnr_db(reference.run(other).latents[-1], actual)
        assert measured > 35 if other == index else measured < 30


@pytest.mark.slow
def test_learngene_is_stored_once(result: ExportResult, export: Export) -> None:
    looked_up = export(class_functions=False)
    assert "class_functions" not in looked_up.manifest.data["targets"]["coreml"]["programs"]["step"]
    assert _weight_bytes(result) < 1.1 * _weight_bytes(looked_up)


@pytest.mark.slow
def test_functions_are_opened_as_their_classes_are_drawn(result: ExportResult, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str | None] = []
    start = EvaluatedProgram.__init__

    def spy(self: EvaluatedProgram, file: Path, spec: ProgramSpec, *, function: str | None = None) -> None:
        opened.append(function)
        start(self, file, spec, function=function)

    monkeypatch.setattr(EvaluatedProgram, "__init__", spy)
    generator = _open(result)
    assert opened == ["giant_panda", None]  # and decode
    for _ in range(2):
        generator.picture(2, seed=0)
    assert opened == ["giant_panda", None, "giant_panda_lemon"]
    with pytest.raises(BundleError, match="class_index is 3, expected 0 to 2"):
        generator.picture(3, seed=0)


@pytest.mark.slow
def test_fewer_bits_are_checked_class_by_class(export: Export) -> None:
    coarse = export(precision="int8", blends=())
    assert len(coarse.parities["coreml"].class_psnr_db) == 2
    facts = coarse.manifest.data["targets"]["coreml"]["lowering"]["step"]["functions"]
    first, second = (facts[name]["compression"] for name in ("giant_panda", "lemon"))
    assert first == second
    assert first["num_layers"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_swapped_functions_are_not_published(
    precision: str, export: Export, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(class_functions, "pick_class", lambda model, index: pick_class(model, 1 - index))
    with pytest.raises(VerificationError, match=r"'giant panda'.*nothing was published"):
        export(tmp_path, precision=precision, blends=())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"targets": ("all",)}, "target coreml alone, asked for coreml, onnx, executorch"),
        ({"targets": ("onnx",)}, "target coreml alone, asked for onnx"),
        ({"min_ios": 17}, "need iOS 18, min-ios is 17"),
        ({"blends": (), "classes": ("lemon",)}, "two or more classes, asked for one"),
        ({"blends": (), "packs": True}, "not with --packs"),
        ({"guidance_interval": (0.2, 0.8)}, "does not go with --guidance-interval"),
    ],
)
def test_what_does_not_go_with_functions_is_refused(
    changes: dict[str, Any], message: str, export: Export, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        export(tmp_path, **changes)
    assert not list(tmp_path.iterdir())


def _steps_of(model: CompactModel, index: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A step of class `index` by the model of all classes, by that of the class, and without class_index."""
    one = pick_class(model, index)
    latents, history = torch.randn(2, 1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    step, guidance = torch.ones(1, dtype=torch.int32), torch.tensor([GUIDANCE])
    choice, first = torch.tensor([index], dtype=torch.int32), torch.zeros(1, dtype=torch.int32)
    with torch.no_grad():
        return (
            StepProgram(model)(latents, history, step, choice, guidance)[0],
            StepProgram(one)(latents, history, step, first, guidance)[0],
            ClassStep(one, GraphStyle())(latents, history, step, guidance)[0],
        )


@pytest.mark.parametrize("changes", _MODELS.values(), ids=_MODELS)
@pytest.mark.parametrize("baking", [None, "off", "on", "auto"], ids=["composed", "off", "on", "auto"])
def test_one_of_several_classes_is_the_class(changes: dict[str, Any], baking: str | None) -> None:
    source = tiny_model(tiny_config(**changes))
    config = DiffusionConfig(noise_schedule="squaredcos_cap_v2", prediction_type="sample")
    table = read_sampler_table(config, "dpmpp", STEPS)
    model = compose_gates(source, table) if baking is None else rewrite(source, table, RewriteOptions(baking=baking))
    seen = []
    for index in range(4):
        expected, *others = _steps_of(model, index)
        assert all(torch.allclose(expected, other, atol=1e-3) for other in others)
        seen.append(expected)
    assert all((seen[0] - other).abs().max() > 1e-2 for other in seen[1:])


def test_classes_have_the_learngene_in_common() -> None:
    config = DiffusionConfig(noise_schedule="squaredcos_cap_v2", prediction_type="sample")
    model = rewrite(tiny_model(), read_sampler_table(config, "dpmpp", STEPS), RewriteOptions())
    first, second = (StepProgram(pick_class(model, index)).state_dict() for index in (0, 2))
    differing = {name for name in first if not torch.equal(first[name], second[name])}
    assert differing
    assert all("tailor" in name or name.startswith("conditioner") for name in differing)


def test_functions_are_named_after_their_classes() -> None:
    infos = [
        ClassInfo(id="n1", names=("King Charles's spaniel",)),
        ClassInfo(id="n2", names=("crane",)),
        ClassInfo(id="n3", names=("crane", "machine")),
        ClassInfo(id="7-8", names=("8 ball + lemon",)),
    ]
    expected = {"n1": "king_charles_s_spaniel", "n2": "class_n2", "n3": "class_n3", "7-8": "class_7_8"}
    assert name_functions(infos) == expected
