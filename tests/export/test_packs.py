"""Packs: a base with a pack is the class, without one the learngene alone, and only what fits is attached."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from artifacts import make_reference, sampler_of
from click.testing import CliRunner, Result
from safetensors.numpy import load_file, save_file
from torch import Tensor

from distilled import save_distilled
from kind_core.checkpoint import load_checkpoint, save_checkpoint
from kind_core.closeness import psnr_db
from kind_core.errors import BundleError, ConfigError, VerificationError
from kind_core.samplers import Sampling
from kind_export.cli import main as kind_export
from kind_export.compact.model import CompactModel
from kind_export.compact.step import StepProgram
from kind_export.report.model import count_step_flops
from kind_export.request import TARGETS
from kind_export.rewrites import RewriteOptions, rewrite, rewrite_base
from kind_export.rewrites.detach_classes import DetachedClass
from kind_export.targets.programs import make_step
from kind_export.targets.target import TargetOptions, load_target
from kind_export.verify.gates import Verifier
from kind_export.verify.reference import Reference
from kind_runtimes import draw
from kind_runtimes.bundle import Bundle, open_bundle
from kind_runtimes.cli import main as kind_run
from kind_runtimes.generator import Generator, open_generator
from kind_runtimes.packs import PACK_TENSORS, PACK_VERSION, encode_metadata, read_pack
from tiny import CLASSES, tiny_config, tiny_model, tiny_model_config

STEPS = 4
MODELS: dict[str, dict[str, Any]] = {
    "factored": {},
    "q, k and v joined": {"learngene_rank": 28},
    "ranks by class": {"tailor_ranks": (3, 1, 2, 0)},
    "embedders of each block": {"block_embedders": True, "depth": 3},
}


@torch.no_grad()
def run_base(base: CompactModel, detached: DetachedClass | None, step: int, latents: Tensor) -> Tensor:
    program = StepProgram(base)
    example = make_step(base, load_target("onnx"), TargetOptions(precision="fp32")).example[-3:]
    pack = example if detached is None else tuple(getattr(detached, name) for name in PACK_TENSORS)
    result: Tensor = program(latents, latents, torch.tensor([step]), torch.tensor([2.0]), *pack)[0]
    return result


@pytest.mark.parametrize("kind", MODELS)
@torch.no_grad()
def test_a_base_with_a_class_is_the_program_of_that_class(kind: str) -> None:
    model, table = tiny_model(tiny_config(**MODELS[kind])), sampler_of(make_reference(1))
    base, classes = rewrite_base(model, table, tailor_rank=3, table_rank=STEPS)  # of full rank: exact
    program = StepProgram(rewrite(model, table, RewriteOptions()))
    latents = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    results = []
    for index, detached in enumerate(classes):
        label = torch.tensor([index], dtype=torch.int32)
        for step in range(STEPS):
            expected = program(latents, latents, torch.tensor([step]), label, torch.tensor([2.0]))[0]
            results.append(run_base(base, detached, step, latents))
            assert (expected - results[-1]).abs().max() < 1e-5 * expected.abs().max()
    assert (results[0] - results[STEPS]).abs().max() > 1e-2, "classes that are equal prove nothing"


def test_a_base_knows_nothing_of_the_classes() -> None:
    model, table = tiny_model(), sampler_of(make_reference(1))
    first, second = (rewrite_base(m, table, tailor_rank=2, table_rank=2)[0] for m in (model, _other_classes(model)))
    states = [StepProgram(base).state_dict() for base in (first, second)]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def _other_classes(model: torch.nn.Module) -> Any:
    other = tiny_model(tiny_config(num_classes=1), seed=7)
    other.load_state_dict(model.learngene_state(), strict=False)  # type: ignore[operator]
    return other


@pytest.mark.parametrize("kind", MODELS)
def test_flops_of_a_base_count_the_pack(kind: str) -> None:
    """As torch counts the products of a run; a pack as wide as the widest tailor pads nothing."""
    from torch.utils.flop_counter import FlopCounterMode

    model = tiny_model(tiny_config(**MODELS[kind]))
    base, classes = rewrite_base(model, sampler_of(make_reference(1)), tailor_rank=3, table_rank=2)
    with FlopCounterMode(display=False) as counter:
        run_base(base, classes[0], 0, torch.zeros(1, 3, 8, 8))
    assert count_step_flops(base) == counter.get_total_flops()


@pytest.mark.parametrize("learngene_rank", [8, 28])
def test_a_base_is_one_delegate(learngene_rank: int, tmp_path: Path) -> None:
    model = tiny_model(tiny_config(depth=1, learngene_rank=learngene_rank))
    base, _ = rewrite_base(model, sampler_of(make_reference(1)), 2)
    target, options = load_target("executorch"), TargetOptions(precision="fp32")
    facts = target.lower(make_step(base, target, options), tmp_path / "step.pte", options)
    assert facts["num_delegates"] == 1


# a base of two classes of a checkpoint of four, for onnxruntime


@dataclass(frozen=True)
class Export:
    checkpoint: Path
    bundle: Bundle


def write_checkpoint(folder: Path, seed: int = 0, **changes: Any) -> Path:
    dit = tiny_config(depth=1, **changes)
    config = tiny_model_config(dit, noise_schedule="squaredcos_cap_v2", prediction_type="sample")
    save_checkpoint(folder, config, tiny_model(dit, seed))
    return folder


def export(*arguments: object) -> Result:
    return CliRunner().invoke(kind_export, [str(argument) for argument in arguments])


SETTINGS = ("--steps", STEPS, "--sampler", "dpmpp", "--guidance", 2)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Export:
    folder = tmp_path_factory.mktemp("packs")
    checkpoint, output = write_checkpoint(folder / "model"), folder / "base.kind"
    chosen = ("--packs", "--classes", "panda,lemon", "--target", "onnx", *SETTINGS)
    done = export(*chosen, "--checkpoint", checkpoint, "-o", output)
    assert done.exit_code == 0, done.output
    return Export(checkpoint, open_bundle(output))


@pytest.fixture
def generator(base: Export) -> Generator:
    return open_generator(base.bundle.path, base.bundle.manifest, "onnx")


def pack_file(export: Export, name: str) -> Path:
    return export.bundle.path / "packs" / f"{name}.pack"


def test_manifest_lists_packs_apart_from_the_files_of_the_app(base: Export) -> None:
    data = base.bundle.manifest.data
    assert [pack["file"] for pack in data["packs"]] == ["packs/giant-panda.pack", "packs/lemon.pack"]
    assert not [name for name in data["files"] if name.startswith("packs")]
    for pack in data["packs"]:
        assert pack["size_bytes"] == (base.bundle.path / pack["file"]).stat().st_size
        assert pack["trajectory_psnr_db"]["onnx"] > 35
    assert data["targets"]["onnx"]["parity"]["detached_psnr_db"] > 60
    assert data["targets"]["onnx"]["parity"]["threshold_db"] == 35
    step = base.bundle.manifest.target("onnx").programs["step"]
    assert [s.name for s in step.inputs][-4:] == ["guidance", *PACK_TENSORS]


def test_an_app_attaches_swaps_and_detaches(base: Export, generator: Generator) -> None:
    golden = load_file(base.bundle.path / "golden.safetensors")
    packs = [read_pack(pack_file(base, name)) for name in ("giant-panda", "lemon")]
    before = list(generator.trajectory(golden["2.noise"], 0))
    for index, pack in enumerate(packs):
        attached = generator.with_pack(pack)
        *_, latents = attached.trajectory(golden[f"{index}.noise"], 0)
        assert psnr_db(golden[f"{index}.latents"][-1:], latents) > 35
        assert psnr_db(golden[f"{1 - index}.latents"][-1:], latents) < 30, "the other class would pass too"
    for generator_after in (generator, generator.with_pack(packs[0]).with_pack(packs[1]).without_pack()):
        after = list(generator_after.trajectory(golden["2.noise"], 0))
        assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))
    assert psnr_db(golden["2.latents"][-1:], before[-1]) > 60


def test_a_base_has_one_class_at_a_time(generator: Generator) -> None:
    with pytest.raises(ValueError, match="class_index is 1"):
        generator.latents(1, seed=0)


def test_the_golden_learngene_is_the_model_with_every_gate_closed(base: Export) -> None:
    golden = load_file(base.bundle.path / "golden.safetensors")
    checkpoint = load_checkpoint(base.checkpoint, [1])
    model = checkpoint.model
    with torch.no_grad():
        model.tailors.weight.zero_()  # no tailor, no label embedding: only the null label is left
        model.tailors.label_embeddings().copy_(model.null_label_embedding)
    expected = Reference(
        checkpoint=checkpoint, sampling=Sampling(sampler="dpmpp", steps=STEPS, guidance_scale=2.0)
    ).run(0)
    np.testing.assert_allclose(golden["2.latents"], np.concatenate(expected.latents), atol=1e-5)


def test_the_same_command_gives_the_same_packs(base: Export, tmp_path: Path) -> None:
    arguments = ("--packs", "--classes", "panda,lemon", "--base", base.bundle.path, "-o", tmp_path)
    done = export(*arguments, "--checkpoint", base.checkpoint)
    assert done.exit_code == 0, done.output
    for name in ("giant-panda", "lemon"):
        assert (tmp_path / f"{name}.pack").read_bytes() == pack_file(base, name).read_bytes()


def test_a_later_class_fits_a_base_that_never_saw_it(base: Export, generator: Generator, tmp_path: Path) -> None:
    arguments = ("--packs", "--classes", "seashore", "--base", base.bundle.path, "--checkpoint", base.checkpoint)
    done = export(*arguments, "-o", tmp_path / "new", "--json")
    assert done.exit_code == 0, done.output
    (entry,) = json.loads(done.stdout)["packs"]
    assert entry["trajectory_psnr_db"]["onnx"] > 35
    reference = Reference(
        checkpoint=load_checkpoint(base.checkpoint, [3]),
        sampling=Sampling(sampler="dpmpp", steps=STEPS, guidance_scale=2.0),
    ).run(0)
    *_, latents = generator.with_pack(read_pack(Path(entry["file"]))).trajectory(reference.noise, 0)
    assert psnr_db(reference.latents[-1], latents) > 35
    assert "already exists" in export(*arguments, "-o", tmp_path / "new").output


def test_a_base_of_another_learngene_takes_no_packs_of_this_one(base: Export, tmp_path: Path) -> None:
    other = write_checkpoint(tmp_path / "other", seed=1)
    done = export("--packs", "--classes", "lemon", "--base", base.bundle.path, "--checkpoint", other, "-o", tmp_path)
    assert done.exit_code == 1
    assert f"is base {base.bundle.manifest.pack_base[:12]}" in done.output.replace("\n", " ")  # type: ignore[index]


def test_a_base_takes_no_packs_of_a_checkpoint_that_draws_otherwise(base: Export, tmp_path: Path) -> None:
    student = save_distilled(tmp_path / "student")
    done = export("--packs", "--classes", "lemon", "--base", base.bundle.path, "--checkpoint", student, "-o", tmp_path)
    assert done.exit_code == 1
    output = " ".join(done.output.split())
    assert f"is no base of the checkpoint {student}" in output
    assert "give the checkpoint that the base was exported from" in output
    assert "--sampler" not in output  # which a base does not take


def test_a_wrong_pack_is_not_published(base: Export, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from kind_export import later_packs

    def mixed_up(*arguments: Any, **options: Any) -> Any:
        compact, classes = rewrite_base(*arguments, **options)
        return compact, tuple(replace(c, tailor=c.tailor * 0) for c in classes)

    monkeypatch.setattr(later_packs, "rewrite_base", mixed_up)
    arguments = ("--packs", "--classes", "seashore", "--base", base.bundle.path, "--checkpoint", base.checkpoint)
    done = export(*arguments, "-o", tmp_path / "new")
    assert done.exit_code == 1
    assert "nothing was published" in done.output
    assert not list((tmp_path / "new").glob("*"))


def test_bits_that_change_after_detaching_are_refused(base: Export, generator: Generator) -> None:
    class Drifting:
        engine, calls = "a test", 0

        def __call__(self, inputs: Any) -> Any:
            self.calls += 1
            return {n: a + np.float32(1e-6 * self.calls) for n, a in generator.step(inputs).items()}

    manifest = base.bundle.manifest
    checkpoint = load_checkpoint(base.checkpoint, [0, 2])
    verifier = Verifier(
        Reference(checkpoint=checkpoint, sampling=Sampling(sampler="dpmpp", steps=STEPS, guidance_scale=2.0))
    )
    packs = [read_pack(base.bundle.path / pack.file) for pack in manifest.packs]
    with pytest.raises(VerificationError, match="other bits than before packs were attached"):
        verifier.check(replace(generator, step=Drifting()), manifest.target("onnx"), packs)


# what an app may find


@pytest.fixture
def spoil(base: Export, tmp_path: Path) -> Callable[..., Path]:
    """A copy of the lemon's pack with some tensors or fields of its metadata changed."""

    def make(tensors: dict[str, np.ndarray] | None = None, **changes: Any) -> Path:
        original, file = pack_file(base, "lemon"), tmp_path / "spoilt.pack"
        metadata = encode_metadata(CLASSES[2], base.bundle.manifest.pack_base or "")
        data = json.loads(metadata["pack"]) | changes
        save_file({**load_file(original), **(tensors or {})}, file, metadata={"pack": json.dumps(data)})
        return file

    return make


def test_an_unspoilt_copy_is_taken(spoil: Callable[..., Path], generator: Generator) -> None:
    assert generator.with_pack(read_pack(spoil())).pack is not None


def test_a_pack_of_another_base_is_refused(spoil: Callable[..., Path], generator: Generator) -> None:
    pack = read_pack(spoil(base="f" * 64))
    with pytest.raises(BundleError, match=r"spoilt\.pack is a pack for base ffffffffffff\.\.\., this bundle is base"):
        generator.with_pack(pack)


def test_a_newer_pack_is_refused(spoil: Callable[..., Path]) -> None:
    with pytest.raises(BundleError, match=f"format_version {PACK_VERSION + 1}, this program reads up to"):
        read_pack(spoil(format_version=PACK_VERSION + 1))


@pytest.mark.parametrize("length", [0, 5, 200, -1])
def test_a_damaged_pack_is_refused(base: Export, tmp_path: Path, length: int) -> None:
    file = tmp_path / "cut.pack"
    file.write_bytes(pack_file(base, "lemon").read_bytes()[:length])
    with pytest.raises(BundleError, match=r"cut\.pack is not a whole pack"):
        read_pack(file)


def test_a_pack_with_nan_or_of_another_shape_is_refused(spoil: Callable[..., Path], generator: Generator) -> None:
    tailor = read_pack(spoil()).tensors["tailor"]
    with pytest.raises(BundleError, match="'tailor' holds NaN"):
        read_pack(spoil({"tailor": tailor * np.float16(np.nan)}))
    with pytest.raises(BundleError, match=r"'tailor' has shape \[1, 3\], the base takes"):
        generator.with_pack(read_pack(spoil({"tailor": tailor[:, :3].copy()})))


def test_a_file_that_is_no_pack_is_refused(base: Export, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="is not a pack"):
        read_pack(base.bundle.path / "golden.safetensors")
    with pytest.raises(BundleError, match="there is no pack"):
        read_pack(tmp_path / "none.pack")


@pytest.fixture
def shipped(base: Export, tmp_path: Path) -> Path:
    """The base as an app ships it, with the panda's pack only."""
    folder = Path(shutil.copytree(base.bundle.path, tmp_path / "app.kind"))
    (folder / "packs" / "lemon.pack").unlink()
    return folder


def run(*arguments: object) -> Result:
    return CliRunner().invoke(kind_run, [str(argument) for argument in arguments])


def test_a_base_opens_without_packs_and_checks_those_it_has(shipped: Path) -> None:
    assert len(open_bundle(shipped).manifest.packs) == 2
    pack = shipped / "packs" / "giant-panda.pack"
    pack.write_bytes(pack.read_bytes()[:-1] + b"x")
    with pytest.raises(BundleError, match=r"giant-panda\.pack has sha256"):
        open_bundle(shipped)


def test_a_run_draws_the_pack_that_was_given(base: Export, shipped: Path, tmp_path: Path, generator: Generator) -> None:
    from PIL import Image

    done = run(shipped, "--pack", pack_file(base, "lemon"), "--seed", 3, "-o", tmp_path / "lemon.png")
    assert done.exit_code == 0, done.output
    assert "class    lemon (n07749582)" in done.output
    expected = generator.with_pack(read_pack(pack_file(base, "lemon"))).picture(0, 3)
    with Image.open(tmp_path / "lemon.png") as image:
        np.testing.assert_array_equal(np.asarray(image), expected)


def test_a_run_finds_a_class_among_the_packs_of_the_bundle(base: Export, shipped: Path, tmp_path: Path) -> None:
    for arguments in (("--class", "panda"), ("--pack", pack_file(base, "giant-panda"))):
        done = run(shipped, *arguments, "-o", tmp_path / "panda.png", "--force")
        assert done.exit_code == 0, done.output
        assert "class    giant panda" in done.output
    done = run(shipped, "--class", "lemon", "-o", tmp_path / "lemon.png")
    assert done.exit_code == 1
    assert "has no packs/lemon.pack" in done.output


def test_a_run_draws_the_pack_that_was_verified_whatever_lies_beside_it(
    base: Export, shipped: Path, tmp_path: Path, generator: Generator
) -> None:
    from PIL import Image
    from safetensors.numpy import save_file

    panda, lemon = (read_pack(pack_file(base, name)) for name in ("giant-panda", "lemon"))
    save_file(dict(lemon.tensors), shipped / "packs" / "another.pack", encode_metadata(panda.info, panda.base))
    done = run(shipped, "--class", "panda", "--seed", 3, "-o", tmp_path / "panda.png")
    assert done.exit_code == 0, done.output
    with Image.open(tmp_path / "panda.png") as image:
        np.testing.assert_array_equal(np.asarray(image), generator.with_pack(panda).picture(0, 3))


def test_a_listed_pack_is_held_against_the_golden_data_however_its_path_is_written(
    base: Export, shipped: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int | None] = []
    monkeypatch.setattr(draw, "check_golden", lambda *arguments: seen.append(arguments[-1]))
    monkeypatch.chdir(shipped.parent)
    pack = Path(shipped.name) / "packs" / "giant-panda.pack"
    done = run(shipped, "--pack", pack, "-o", "panda.png")
    assert done.exit_code == 0, done.output
    names = [one.file for one in open_bundle(shipped).manifest.packs]
    assert seen == [names.index("packs/giant-panda.pack")]


def test_a_run_without_a_pack_says_that_it_draws_the_learngene(shipped: Path, tmp_path: Path) -> None:
    done = run(shipped, "-o", tmp_path / "learngene.png")
    assert done.exit_code == 0, done.output
    assert "no pack is attached" in done.stderr
    assert "class    learngene" in done.stdout


def test_a_run_refuses_what_does_not_go_together(base: Export, shipped: Path, spoil: Callable[..., Path]) -> None:
    pack = pack_file(base, "lemon")
    assert "both a class, 'panda', and a pack" in run(shipped, "--class", "panda", "--pack", pack).output
    assert "is a pack for base 0000" in run(shipped, "--pack", spoil(base="0" * 64)).output


def test_packs_need_tailors(tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path / "dense", learngene_rank=None, tailor_rank=0)
    done = export("--packs", "--classes", "panda", "--target", "onnx", "--checkpoint", checkpoint)
    assert done.exit_code == 1
    assert "the checkpoint has no tailors" in done.output


def test_settings_of_a_base_are_not_asked_again(base: Export) -> None:
    from kind_export.request import ExportRequest

    with pytest.raises(ConfigError, match="--steps goes with a new base only"):
        ExportRequest(
            classes=("a",), targets=(), checkpoint=base.checkpoint, base=base.bundle.path, packs=True, steps=3
        )
    others: dict[str, Any] = {
        "strict": True, "latents_only": True, "force_steps": True, "min_ios": 18, "baking": "on",
    }  # fmt: skip
    for name, value in others.items():
        with pytest.raises(ConfigError, match=f"--{name.replace('_', '-')} goes with a new base only"):
            ExportRequest(
                classes=("a",),
                targets=(),
                checkpoint=base.checkpoint,
                base=base.bundle.path,
                packs=True,
                **{name: value},
            )
    with pytest.raises(ConfigError, match="packs hold a modulation table"):
        ExportRequest(classes=("a",), targets=("onnx",), checkpoint=base.checkpoint, packs=True, baking="off")
    with pytest.raises(ConfigError, match="no packs were asked for"):
        ExportRequest(classes=("a",), targets=(), checkpoint=base.checkpoint, base=base.bundle.path)


@pytest.mark.slow
def test_one_pack_fits_the_bases_of_all_targets(base: Export, tmp_path: Path) -> None:
    arguments = ("--packs", "--classes", "panda", "--target", "all", *SETTINGS, "--checkpoint", base.checkpoint)
    done = export(*arguments, "-o", tmp_path / "all.kind")
    assert done.exit_code == 0, done.output
    bundle = open_bundle(tmp_path / "all.kind")
    assert bundle.manifest.pack_base == base.bundle.manifest.pack_base
    pack = read_pack(pack_file(base, "lemon"))
    golden = load_file(base.bundle.path / "golden.safetensors")
    for target in TARGETS:
        attached = open_generator(bundle.path, bundle.manifest, target).with_pack(pack)
        *_, latents = attached.trajectory(golden["1.noise"], 0)
        assert psnr_db(golden["1.latents"][-1:], latents) > 35
