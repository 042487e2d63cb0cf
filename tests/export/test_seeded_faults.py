"""More faults, seeded into tables, tailors, programs as they run, manifests and packs: refused at export or at opening.

What no test here refuses, and why no user is hurt by it:
- another default guidance scale in a manifest: any scale may be given, and the line is held at export;
- golden data of which a later step alone is another's: only tests of apps read it; an export writes the very
  trajectories that its programs were held to;
- another measured parity, size or tool version in a manifest: nothing is computed from it;
- a whole bundle of another model under this one's name: it is what its maker says, hashes and all.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from artifacts import Artifact, make_reference
from click.testing import CliRunner
from eager_programs import Arrays
from faults import ConstantFault
from safetensors.numpy import load_file, save, save_file

from kind_bench.cli import main as kind_bench
from kind_core.checkpoint import save_checkpoint
from kind_core.errors import KindError, VerificationError
from kind_core.files.hashing import hash_file
from kind_export.cli import main as kind_export
from kind_export.compact.model import CompactModel, ModulationTable
from kind_export.verify.gates import Verifier
from kind_runtimes.bundle import open_bundle
from kind_runtimes.draw import RunRequest, run_bundle
from kind_runtimes.generator import open_generator
from kind_runtimes.packs import encode_metadata, read_pack
from tiny import tiny_config, tiny_model, tiny_model_config

Step = Callable[[Arrays, Mapping[str, np.ndarray]], Arrays]


@pytest.fixture(scope="module")
def programs() -> Artifact:
    """Two classes, whose tailors are rows of a table; nothing is lowered."""
    return Artifact.prepare("onnx", Verifier(make_reference(2)))


def _table(change: Callable[[torch.Tensor], torch.Tensor]) -> ConstantFault:
    def fault(model: CompactModel) -> CompactModel:
        assert isinstance(model.conditioning, ModulationTable)
        return replace(model, conditioning=ModulationTable(values=change(model.conditioning.values.clone())))

    return fault


def _tailors(change: Callable[[tuple[Any, ...]], tuple[Any, ...]]) -> ConstantFault:
    def fault(model: CompactModel) -> CompactModel:
        blocks = tuple({n: replace(m, tailors=change(m.tailors)) for n, m in b.items()} for b in model.blocks)
        return replace(model, blocks=blocks)

    return fault


def _row(index: int, source: int) -> ConstantFault:
    def change(values: torch.Tensor) -> torch.Tensor:
        values[index] = values[source]
        return values

    return _table(change)


def _sampler(name: str, change: Callable[[Any], Any]) -> ConstantFault:
    return lambda model: replace(
        model, sampler=replace(model.sampler, **{name: change(getattr(model.sampler, name).copy())})
    )


def _last(column: Any) -> Any:
    column[-1] *= 1.005
    return column


def _first(column: Any) -> Any:
    column[0] *= 1.005
    return column


CONSTANTS: dict[str, ConstantFault] = {
    "only the last row of the table is wrong": _row(3, 2),
    "only the first row of the table is wrong": _row(0, 1),
    "rows of the table swapped": _table(lambda v: v[[0, 2, 1, 3]]),
    "the last row at every step": _table(lambda v: v[[3, 3, 3, 3]]),
    "rows of the table reversed": _table(lambda v: v.flip(0)),
    "the class's modulations without guidance's": _table(lambda v: v[:, [0, 1, 0]]),
    "the table 0.5 % too large": _table(lambda v: v * 1.005),
    "the second class's tailor for both": _tailors(lambda t: (t[1], t[1])),
    "the first class's tailor for both": _tailors(lambda t: (t[0], t[0])),
    "only the second class without its tailor": _tailors(lambda t: (t[0], replace(t[1], up=t[1].up * 0))),
    "only the second class's tailor a little off": _tailors(lambda t: (t[0], replace(t[1], up=t[1].up * 1.02))),
    "a tailor with another sign": _tailors(lambda t: (replace(t[0], up=-t[0].up), t[1])),
    "the last step's share of the prediction 0.5 % too large": _sampler("output", _last),
    "the first step's share of the latents 0.5 % too large": _sampler("latents", _first),
    "positions mirrored": lambda m: replace(m, position_embedding=m.position_embedding.flip(1)),
    "the bias of the patches 3 % too small": lambda m: replace(m, patch_bias=m.patch_bias * 0.97),
}


@pytest.mark.parametrize("fault", CONSTANTS)
def test_wrong_numbers_are_refused(programs: Artifact, fault: str) -> None:
    step = next(programs.lowerings(CONSTANTS[fault](programs.compact))).module
    with pytest.raises(VerificationError, match="nothing was published"):
        programs.verify_eagerly(step)


def _given(change: Callable[[Arrays], Arrays]) -> dict[str, Any]:
    return {"before": lambda inputs: inputs | change(inputs)}


def _gives(change: Callable[[Arrays, Mapping[str, np.ndarray]], Arrays]) -> dict[str, Any]:
    return {"after": lambda outputs, inputs: outputs | change(outputs, inputs)}


def _where(is_there: bool, array: np.ndarray, other: np.ndarray) -> np.ndarray:
    return np.asarray(array if is_there else other, np.float32)


RUNS: dict[str, dict[str, Any]] = {
    "class 0 whatever is asked": _given(lambda i: {"class_index": i["class_index"] * 0}),
    "classes swapped": _given(lambda i: {"class_index": 1 - i["class_index"]}),
    "the last step as the one before": _given(lambda i: {"step_index": i["step_index"].clip(0, 2)}),
    "the first step as the second": _given(lambda i: {"step_index": i["step_index"].clip(1, None)}),
    "guidance of the next step only": _given(
        lambda i: {"guidance": i["guidance"] + np.float32(0.1) * (i["step_index"][0] == 2)}
    ),
    "guidance off by a hundredth": _given(lambda i: {"guidance": i["guidance"] + np.float32(0.01)}),
    "history dropped in one step": _given(lambda i: {"history": i["history"] * np.float32(i["step_index"][0] != 2)}),
    "history kept one step too long": _gives(lambda o, i: {"next_history": i["history"]}),
    "history 0.5 % too large": _gives(lambda o, i: {"next_history": o["next_history"] * np.float32(1.005)}),
    "latents clipped to -1 to 1": _gives(lambda o, i: {"next_latents": o["next_latents"].clip(-1, 1)}),
    "NaN in the last step": _gives(
        lambda o, i: {"next_latents": o["next_latents"] * np.float32(np.nan if i["step_index"][0] == 3 else 1)}
    ),
    "one pixel wrong": _gives(lambda o, i: {"next_latents": _spoil(o["next_latents"])}),
    "one channel 0.5 % too large": _gives(
        lambda o, i: {"next_latents": o["next_latents"] * np.array([1, 1.005, 1], np.float32).reshape(1, 3, 1, 1)}
    ),
    "latents mirrored": _gives(lambda o, i: {"next_latents": np.ascontiguousarray(o["next_latents"][..., ::-1])}),
    "latents transposed": _gives(lambda o, i: {"next_latents": np.ascontiguousarray(o["next_latents"].swapaxes(2, 3))}),
    "results of half precision": _gives(
        lambda o, i: {"next_latents": (o["next_latents"].astype(np.float16) * np.float16(1.001)).astype(np.float32)}
    ),
    "latents of the step before": _gives(lambda o, i: {"next_latents": np.array(i["latents"])}),
}


def _spoil(latents: np.ndarray) -> np.ndarray:
    latents = latents.copy()
    latents[0, 0, -1, -1] += np.float32(0.05)
    return latents


@pytest.mark.parametrize("fault", RUNS)
def test_wrong_steps_are_refused(programs: Artifact, fault: str) -> None:
    with pytest.raises(VerificationError, match="nothing was published"):
        programs.verify_eagerly(next(programs.lowerings()).module, **RUNS[fault])


# ---- bundles that were changed after their export, with hashes that fit


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A bundle of two classes, and one of the same with another number of steps, and a base with its packs."""
    folder = tmp_path_factory.mktemp("faults")
    dit = tiny_config(depth=1)
    config = tiny_model_config(dit, noise_schedule="squaredcos_cap_v2", prediction_type="sample")
    save_checkpoint(folder / "model", config, tiny_model(dit))
    made = {}
    save_checkpoint(folder / "stranger", config, tiny_model(dit, seed=1))
    for name, model, more in (
        ("pair", "model", ("--steps", "4")), ("other", "model", ("--steps", "5")),
        ("base", "model", ("--steps", "4", "--packs")), ("stranger", "stranger", ("--steps", "4")),
    ):  # fmt: skip
        made[name] = folder / f"{name}.kind"
        arguments = ("--classes", "panda,lemon", "--target", "onnx", "--sampler", "dpmpp", "--guidance", "2", *more)
        given = [*arguments, "--checkpoint", str(folder / model), "-o", str(made[name])]
        done = CliRunner().invoke(kind_export, given)
        assert done.exit_code == 0, done.output
    return made


def _change(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Another manifest, with the hashes of the files that are there."""
    data = json.loads((folder / "manifest.json").read_text())
    change(data)
    for name, entry in data["files"].items():
        entry["sha256"] = hash_file(folder / name)
    (folder / "manifest.json").write_text(json.dumps(data))


def _draw(folder: Path) -> None:
    manifest = open_bundle(folder).manifest
    generator = open_generator(folder, manifest, "onnx")
    for index in range(1 if manifest.packs else len(manifest.classes)):
        generator.picture(index, 0)


def _io(data: dict[str, Any], key: str) -> Any:
    return data["targets"]["onnx"]["programs"]["step"][key]


def _swap(entries: list[Any]) -> None:
    entries[0], entries[1] = entries[1], entries[0]


MANIFESTS: dict[str, Callable[[dict[str, Any]], None]] = {
    "fewer steps": lambda d: d.update(steps=3),
    "more steps": lambda d: d.update(steps=5),
    "another sampler": lambda d: d.update(sampler="ddim"),
    "another noise scale": lambda d: d.update(initial_noise_scale=d["initial_noise_scale"] * 1.005),
    "classes in another order": lambda d: _swap(d["classes"]),
    "another name of a class": lambda d: d["classes"][0].update(names=["lemon"]),
    "another id of a class": lambda d: d["classes"][0].update(id="n02509815"),
    "a class too few": lambda d: d["classes"].pop(),
    "a class too many": lambda d: d["classes"].append({"id": "n02509815", "names": ["lesser panda"]}),
    "steps without guidance": lambda d: d.update(guidance_interval=[0, 0.5], guided_steps=[0, 1]),
    "latents and history swapped": lambda d: _swap(_io(d, "inputs")),
    "results swapped": lambda d: _swap(_io(d, "outputs")),
    "another shape": lambda d: _io(d, "inputs")[0].update(shape=[1, 3, 16, 16]),
    "another type": lambda d: _io(d, "inputs")[0].update(dtype="float16"),
    "step and decode swapped": lambda d: d["targets"]["onnx"]["programs"].update(
        step=d["targets"]["onnx"]["programs"]["decode"], decode=d["targets"]["onnx"]["programs"]["step"]
    ),
    "latents of another shape": lambda d: d.update(latents_shape=[1, 3, 16, 16]),
}


@pytest.mark.parametrize("fault", MANIFESTS)
def test_a_manifest_that_contradicts_its_programs_is_refused(
    exported: dict[str, Path], tmp_path: Path, fault: str
) -> None:
    shutil.copytree(exported["pair"], tmp_path / "b.kind")
    _draw(tmp_path / "b.kind")
    _change(tmp_path / "b.kind", MANIFESTS[fault])
    with pytest.raises(KindError) as error:
        _draw(tmp_path / "b.kind")
    assert "\n" not in error.value.message


def test_a_program_of_another_export_is_refused(exported: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(exported["pair"], tmp_path / "b.kind")
    shutil.copy(exported["other"] / "onnx" / "step.onnx", tmp_path / "b.kind" / "onnx" / "step.onnx")
    with pytest.raises(KindError, match="the manifest expects"):
        _draw(tmp_path / "b.kind")
    _change(tmp_path / "b.kind", lambda data: None)
    with pytest.raises(KindError, match="it says steps 5, the manifest 4"):
        _draw(tmp_path / "b.kind")


def test_packs_are_held_to_their_base_and_to_their_class(exported: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(exported["base"], tmp_path / "b.kind")
    packs = sorted((tmp_path / "b.kind" / "packs").glob("*.pack"))
    generator = open_generator(tmp_path / "b.kind", open_bundle(tmp_path / "b.kind").manifest, "onnx")
    with pytest.raises(KindError, match="takes no packs"):
        open_generator(exported["pair"], open_bundle(exported["pair"]).manifest, "onnx").with_pack(read_pack(packs[0]))
    with pytest.raises(KindError, match="is a pack for base"):
        generator.with_pack(replace(read_pack(packs[0]), base="0" * 64))
    shutil.copy(packs[0], packs[1])  # one class under the name of another
    with pytest.raises(KindError, match="the manifest expects"):
        open_bundle(tmp_path / "b.kind")


# ---- golden data that the programs do not bear out


def _swap_classes(golden: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {f"{1 - int(name[0])}{name[1:]}": tensor for name, tensor in golden.items()}


GOLDENS: dict[str, Callable[[dict[str, np.ndarray], dict[str, np.ndarray]], dict[str, np.ndarray]]] = {
    "of another model": lambda golden, other: other,
    "its classes in another order": _swap_classes,
    "latents of another model": lambda golden, other: golden | {n: other[n] for n in other if "latents" in n},
    "pictures of another model": lambda golden, other: golden | {n: other[n] for n in other if "image" in n},
    "pictures mirrored": lambda golden, other: golden | {n: t[..., ::-1] for n, t in golden.items() if "image" in n},
    "pictures blue first": lambda golden, other: golden | {n: t[:, ::-1] for n, t in golden.items() if "image" in n},
    "a step late": lambda golden, other: golden | {n: np.roll(t, 1, 0) for n, t in golden.items() if "latents" in n},
    "a step too few": lambda golden, other: golden | {n: t[:-1] for n, t in golden.items() if "latents" in n},
    "half precision": lambda golden, other: {n: t.astype(np.float16) for n, t in golden.items()},
    "not finite": lambda golden, other: {n: t * np.float32(np.nan) for n, t in golden.items()},
    "of the first class alone": lambda golden, other: {n: t for n, t in golden.items() if n[0] == "0"},
}


def _put_golden(folder: Path, golden: dict[str, np.ndarray]) -> None:
    save_file({name: np.ascontiguousarray(tensor) for name, tensor in golden.items()}, folder / "golden.safetensors")
    _change(folder, lambda data: None)


def _run(folder: Path, class_name: str, **more: Any) -> None:
    run_bundle(RunRequest(bundle=folder, class_name=class_name, output=folder.parent / "p.png", force=True, **more))


@pytest.mark.parametrize("fault", GOLDENS)
def test_golden_data_of_something_else_are_refused(exported: dict[str, Path], tmp_path: Path, fault: str) -> None:
    golden, other = (load_file(exported[name] / "golden.safetensors") for name in ("pair", "stranger"))
    _put_golden(Path(shutil.copytree(exported["pair"], tmp_path / "b.kind")), GOLDENS[fault](golden, other))
    with pytest.raises(KindError, match="golden") as error:
        _run(tmp_path / "b.kind", "lemon")
    assert "\n" not in error.value.message
    assert not (tmp_path / "p.png").exists()


def test_golden_data_hold_whatever_guidance_a_manifest_is_given(exported: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(exported["pair"], tmp_path / "b.kind")
    _change(tmp_path / "b.kind", lambda data: data.update(guidance_scale=5.0))
    for name in ("giant panda", "lemon"):
        _run(tmp_path / "b.kind", name)
        _run(tmp_path / "b.kind", name, guidance=-3.0)


def test_a_pack_of_another_class_is_refused(exported: dict[str, Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(exported["base"], tmp_path / "b.kind"))
    panda, lemon = (folder / one["file"] for one in json.loads((folder / "manifest.json").read_text())["packs"])
    _run(folder, "giant panda")
    _run(folder, "lemon")
    pack = read_pack(lemon)
    lemon.write_bytes(save(dict(read_pack(panda).tensors), encode_metadata(pack.info, pack.base)))
    _change(folder, lambda data: data["packs"][1].update(sha256=hash_file(lemon)))
    with pytest.raises(KindError, match="golden"):
        _run(folder, "lemon")
    _run(folder, "giant panda")
    run_bundle(RunRequest(bundle=folder, pack=lemon.rename(tmp_path / "later.pack"), output=tmp_path / "later.png"))


def test_measuring_refuses_golden_data_of_another_model(exported: dict[str, Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(exported["pair"], tmp_path / "b.kind"))
    _put_golden(folder, load_file(exported["stranger"] / "golden.safetensors"))
    arguments = ["run", str(folder), "--repeat", "1", "--rounds", "1", "--images", "0", "-o", str(tmp_path / "r.json")]
    done = CliRunner().invoke(kind_bench, arguments)
    assert done.exit_code == 1
    assert "do not belong together" in done.stderr
