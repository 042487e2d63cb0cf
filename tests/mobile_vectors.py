"""What the kits in other languages must do as Python does: `vectors.json` of their tests, drawn by the Python loop.

`python tests/mobile_vectors.py` writes it into every kit. The programs of a loop are a toy, written again in the tests
of each kit: products and sums of 32-bit floats in this order.

    aim = latents * 0.5 + guidance * 0.25 + class_index * 0.125
        + tailor[0] + modulation_coefficients[step_index] * modulation_basis[1]        (each where it is an input)
    step: next_latents = aim + history * 0.5 - step_index * 0.0625, next_history = latents - aim
    step_unguided: next_latents = latents * 0.75 + class_index * 0.125
    decode: image = latents * 0.5 + 0.5
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from kind_core.class_ids import parse_class_names
from kind_core.classes import ClassInfo, resolve_class
from kind_core.errors import ClassNameError
from kind_core.naming import name_file
from kind_core.noise import format_test_vectors, start_noise
from kind_runtimes.engines.runtime import Arrays, ClassPrograms
from kind_runtimes.generator import Generator
from kind_runtimes.kits import KITS, kit_folder
from kind_runtimes.manifest import NOISE_GENERATOR, Manifest, ProgramSpec, parse_manifest
from kind_runtimes.packs import encode_metadata, read_pack
from mobile_ladders import list_failures, list_ladders

_BASE = "ab" * 32
_SHAPE = [1, 3, 2, 3]
_STEPS = 4
_CLASSES = [
    {"id": "n02510455", "names": ["giant panda", "panda bear"]},
    {"id": "n01882714", "names": ["koala", "koala bear"]},
]
# Folders that are told apart, and what else may be typed.
_ALIKE: list[tuple[tuple[str, ...], tuple[str, ...]]] = [
    (("猫", "犬"), ("鳥",)),
    (("кот", "собака"), ("Кот", "СОБАКА")),
    (("قطة", "كلب"), ()),
    (("😀", "😺"), ()),
    (("café", "cafe"), ("cafe\u0301", "CAFÉ", "Cafe")),
    (("Straße", "weg"), ("STRASSE", "strasse")),
    (("οδός", "δρόμος"), ("ΟΔΌΣ",)),
    (("A", "a"), ()),
    (("cat-1", "cat_1", "cat 1"), ("Cat 1",)),
    (("C++", "C#"), ("C", "c++")),
    (("panda", "giant panda", "giant panda bear"), ("bear", "Bear", "GIANT PANDA")),
    (("tench, Tinca tinca", "tench"), ("Tinca tinca", "TENCH", "tinca", "tench,tinca tinca")),
    (("tench, Tinca tinca", "goldfish"), ("tench, tinca TINCA",)),
    (
        ("n02510455_giant panda, panda, panda bear", "n02509815_lesser panda, red panda, panda, bear cat"),
        (
            "panda",
            "Panda",
            "pandas",
            "n02510455",
            "N02509815",
            "giant pandas",
            "red_panda",
            "red pandas",
            "bear",
            "cats",
        ),
    ),
    (("giant panda", "lesser panda"), ("panda", "PANDAS", "pandas ")),
    (("n02510455_big panda", "red panda"), ("panda", "pandas")),  # by its id alone
    (("giant panda", "n02510455_great panda", "red panda"), ("panda", "pandas")),  # two that are meant
    (("panda", "red panda"), ("pandas", "Panda")),
    (
        ("shoe", "bus", "berry", "wolf", "knife", "glass", "gas", "sheep"),
        ("shoes", "Buses", "BERRIES", "wolves", "knives", "glasses", "glas", "gases", "sheeps", "ga", "busses", "s"),
    ),
    (
        ("shoes", "buses", "berries", "wolves", "knives", "glasses"),
        ("shoe", "bus", "berry", "Wolf", "knife", "glass", "sse"),
    ),
    (
        ("running shoe", "school bus", "dress shoe"),
        ("shoes", "buses", "school_buses", "running-shoes", "dresses", "dress"),
    ),
    (("cat", "cats", "tabby cat"), ("CATS", "Cat", "tabby cats", "cates")),
    (("wolf", "wolfe"), ("wolves", "wolfes")),
    (("😀", "ox"), ("😀s", "😀es", "oxs", "os", "es")),
    (("\u0131l\u0131k", "weiß"), ("ILIK", "ilik", "IL\u0131k", "WEIẞ", "weiss")),  # a dotless i is a letter of its own
]
_TEXTS = (
    "Giant Panda", "Ærø!", "???", "", "con", "COM1", "Con.tent", ".hidden", "mug [blue]", "../x", "a" * 250, "猫" * 90,
    "long name " * 30, "❤️ heart", "👨\u200d👩\u200d👧", "\u0645\u06cc\u200c\u062e\u0648", "हिन्दी", "İstanbul", "ΟΔΌΣ",
    "a\u0301b", "①", "$1 + 2 = 3^~", "tab\tnew\nline", "\u3164", "e\u200b", "x_y-z", "ﬁne", "\uff2b", "a b-seed-7",
)  # fmt: skip
# What a safetensors header may call numbers that are no weights of a pack, and their bytes.
_DTYPES = {"I64": 8, "U8": 1, "BOOL": 1, "F8_E4M3": 1, "F8_E5M2": 1, "BF16": 2, "F64": 8}
NAMES = Path(__file__).parents[1] / "runtimes" / "js" / "tests" / "vectors.json"
PLACES = {
    "ios": "KindRuntime/Tests/KindRuntimeTests/vectors.json",
    "android": "kind-runtime/src/test/resources/vectors.json",
}


class ToyProgram:
    """A step, an unguided step or a decode; `class_index` where it stands for one class."""

    engine = "toy"

    def __init__(self, name: str, class_index: int = 0) -> None:
        self._name = name
        self._class_index = class_index

    def __call__(self, inputs: Mapping[str, np.ndarray]) -> Arrays:
        number = {name: np.float32(value.reshape(-1)[0]) for name, value in inputs.items()}
        latents, half = inputs["latents"], np.float32(0.5)
        if self._name == "decode":
            return {"image": latents * half + half}
        step = int(number["step_index"])
        chosen = np.float32(number.get("class_index", self._class_index)) * np.float32(0.125)
        if self._name == "step_unguided":
            return {"next_latents": latents * np.float32(0.75) + chosen}
        aim = latents * half + number.get("guidance", np.float32(0)) * np.float32(0.25) + chosen
        if "tailor" in inputs:
            pack = inputs["modulation_coefficients"][step, 0] * inputs["modulation_basis"][0, 1]
            aim = aim + number["tailor"] + pack
        history = inputs.get("history", np.zeros_like(latents))
        outputs = {"next_latents": aim + history * half - np.float32(step) * np.float32(0.0625)}
        return {**outputs, "next_history": latents - aim} if "history" in inputs else outputs


def format_vectors() -> str:
    """The text of `vectors.json`, a case a line."""
    vectors = {
        "noise": json.loads(format_test_vectors())["vectors"],
        "manifests": _manifests(),
        "classes": _classes(),
        "alike": _alike(),
        "packs": _packs(),
        "loops": _loops(),
        "ladders": list_ladders(_toy),
        "failures": list_failures(),
    }
    return _format(vectors)


def _format(vectors: Mapping[str, Any]) -> str:
    parts = [f'"{name}": [\n' + ",\n".join(map(json.dumps, cases)) + "\n]" for name, cases in vectors.items()]
    return "{" + ",\n".join(parts) + "}\n"


def manifest_data(inputs: Mapping[str, list[int]], target: str = "", **changes: Any) -> dict[str, Any]:
    """A manifest whose step takes `inputs`, shapes by name, for `target` or, without, for the one of each kit."""
    state = [name for name in ("latents", "history") if name in inputs]
    step = {
        "inputs": [_tensor(name, shape) for name, shape in inputs.items()],
        "outputs": [_tensor(f"next_{name}", _SHAPE) for name in state],
    }
    unguided = {**step, "inputs": [one for one in step["inputs"] if one["name"] != "guidance"]}
    decode = {"inputs": [_tensor("latents", _SHAPE)], "outputs": [_tensor("image", _SHAPE)]}
    programs = {"step": step, "decode": decode}
    if "guided_steps" in changes:
        programs["step_unguided"] = unguided
    for name, program in programs.items():
        program["file"] = f"a-target/{name}"  # type: ignore[assignment]
    if functions := changes.pop("class_functions", None):
        step["class_functions"] = functions
    parity = {"verified_by": "nothing", "threshold_db": 0, "trajectory_psnr_db": 0, "step_psnr_db": 0}
    entry = {"precision": "fp32", "programs": programs, "parity": parity}
    return {
        "format_version": 1, "name": "toy", "classes": _CLASSES, "steps": _STEPS, "sampler": "toy",
        "guidance_scale": 1.5, "initial_noise_scale": 0.8, "latents_shape": _SHAPE, "noise_generator": NOISE_GENERATOR,
        "source": {"checkpoint_sha256": "0" * 64}, "tools": {},
        "targets": dict.fromkeys([target] if target else ["coreml", "onnx"], entry), "files": {}, **changes,
    }  # fmt: skip


def _tensor(name: str, shape: list[int]) -> dict[str, Any]:
    return {"name": name, "shape": shape, "dtype": "int32" if name.endswith("_index") else "float32"}


_PLAIN = {"latents": _SHAPE, "step_index": [1], "class_index": [1], "guidance": [1]}
_MULTISTEP = {"latents": _SHAPE, "history": _SHAPE, "step_index": [1], "class_index": [1], "guidance": [1]}
_DETACHED = {
    "latents": _SHAPE, "step_index": [1], "guidance": [1],
    "tailor": [1, 3], "modulation_basis": [1, 2], "modulation_coefficients": [_STEPS, 1],
}  # fmt: skip


def pack_bytes(base: str = _BASE, **changes: Any) -> bytes:
    """A pack of the toy base; `changes` are tensors."""
    tensors = {
        "tailor": np.array([[0.3333, -7e-8, 65504.0]], np.float16),  # a rounded, a subnormal and the largest half
        "modulation_basis": np.array([[0.0, 0.25]], np.float16),
        "modulation_coefficients": np.array([[1.0], [-0.5], [0.25], [2.0]], np.float16),
    }
    info = ClassInfo(id="n07749582", names=("lemon",))
    return save({**tensors, **changes}, metadata=encode_metadata(info, base))


def _manifests() -> list[dict[str, Any]]:
    """Documents that must be refused, and the one that they are changed from."""
    good = manifest_data(_PLAIN)
    without = {key: value for key, value in good.items() if key != "latents_shape"}
    cases = {
        "as it is": good,
        "a newer format": {**good, "format_version": 3},
        "another noise generator": {**good, "noise_generator": "mersenne/1"},
        "no steps": {**good, "steps": 0},
        "steps in words": {**good, "steps": "four"},
        "no classes": {**good, "classes": []},
        "no latents_shape": without,
        "a flat latents_shape": {**good, "latents_shape": [12]},
        "more steps than any model has": {**good, "steps": 10_001},
        "more numbers than any program takes": {**good, "latents_shape": [1, 3, 2**16, 2**16]},
        "more numbers than an integer holds": {**good, "latents_shape": [2**30, 2**30, 2**30, 2**30]},
    }
    texts = {what: json.dumps(data) for what, data in cases.items()}
    texts |= {"half of it": texts["as it is"][:200], "nothing": ""}
    return [{"what": what, "text": text, "is_refused": what != "as it is"} for what, text in texts.items()]


def _classes() -> list[dict[str, Any]]:
    """What a class may be called; without an index, what fits none or several."""
    known = [ClassInfo(id=str(one["id"]), names=tuple(one["names"])) for one in _CLASSES]

    queries = (
        "n01882714", "KOALA Bear", "giant panda", "Panda", "panda bear", "bear", "wombat", "", "giant_panda",
        " Giant-Panda ", "giant panda, panda bear", "giant panda,panda bear", "\uff2b\uff2f\uff21\uff2c\uff21",
    )  # fmt: skip
    return [{"query": query, "index": _find(query, known)} for query in queries]


def _find(query: str, known: Sequence[ClassInfo]) -> int | None:
    try:
        return resolve_class(query, known).index
    except ClassNameError:
        return None


def _alike() -> list[dict[str, Any]]:
    """Classes in any alphabet that are told apart by id, then by name to the letter, and only then kindly."""
    cases = []
    for names, more in _ALIKE:
        classes = parse_class_names(names)
        data = [{"id": info.id, "names": list(info.names)} for info in classes]
        queries = dict.fromkeys([*(info.id for info in classes), *names, *more])
        cases += [{"classes": data, "query": query, "index": _find(query, classes)} for query in queries]
    return cases


def format_names() -> str:
    """What the JavaScript runtime must do with names: `classes` and `alike` of the kits, and stems of files."""
    known = [ClassInfo(id=str(one["id"]), names=tuple(one["names"])) for one in _CLASSES]
    data = [{"id": info.id, "names": list(info.names)} for info in known]
    texts = dict.fromkeys([*(name for names, _ in _ALIKE for name in names), *_TEXTS])
    vectors = {
        "classes": [{"classes": data, **case} for case in _classes()] + _alike(),
        "packs": _packs(),
        "stems": [{"text": text, "stem": name_file(text)} for text in texts],
    }
    return _format(vectors)


def _stored_as(dtype: str, width: int) -> bytes:
    """A pack whose tailor, the last of its file, is three numbers of `width` bytes that the header calls `dtype`."""
    data = pack_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    begin, end = header["tailor"]["data_offsets"]
    assert end == len(data) - start
    header["tailor"] |= {"dtype": dtype, "data_offsets": [begin, begin + 3 * width]}
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data[start : start + begin] + bytes(3 * width)


def _packs() -> list[dict[str, Any]]:
    """Files that must be refused with what `says` says, if anything, and the one that they are changed from."""
    good = pack_bytes()
    newer = good.replace(b'format_version\\": 1', b'format_version\\": 2')
    assert newer != good
    cases = {
        "as it is": good,
        "a newer format": newer,
        "cut off": good[:-4],
        "cut off in the header": good[:40],
        "nothing": b"",
        "no safetensors": b"<html>not found</html>",
        "a header longer than the file": b"\xff" * 7 + b"\x7f{}",
        "no pack": save({"tailor": np.zeros((1, 3), np.float16)}),
        "not finite": pack_bytes(tailor=np.array([[1, np.nan, 1]], np.float16)),
        "single precision": pack_bytes(tailor=np.zeros((1, 3), np.float32)),
        **{dtype: _stored_as(dtype, width) for dtype, width in _DTYPES.items()},
        "a Git LFS pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 2117\n",
    }
    says = {"single precision": "F32", **{dtype: dtype for dtype in _DTYPES}, "a Git LFS pointer": "Git LFS pointer"}
    return [
        {
            "what": what,
            "base64": base64.b64encode(data).decode(),
            "is_refused": what != "as it is",
            "says": says.get(what, ""),
        }
        for what, data in cases.items()
    ] + [
        {"what": what, "base64": base64.b64encode(data).decode(), "is_refused": False, "does_not_fit": True}
        for what, data in {
            "another base": pack_bytes("cd" * 32),
            "another shape": pack_bytes(tailor=np.zeros((1, 4), np.float16)),
        }.items()
    ]


def _loops() -> list[dict[str, Any]]:
    functions = {"n02510455": "draw_panda", "n01882714": "draw_koala"}
    base = manifest_data(_DETACHED, pack_base=_BASE)
    return [
        _loop("the bundle's guidance, by id", manifest_data(_PLAIN), "n01882714", 7),
        _loop("by name, in capitals", manifest_data(_MULTISTEP), "Giant Panda", 2**64 - 1, guidance=2.5),
        _loop("guidance in two steps", manifest_data(_PLAIN, guided_steps=[1, 2]), "koala", 2**32),
        _loop("guidance in two steps, by one program", _one_program(guided_steps=[1, 2]), "koala", 3),
        _loop("a function a class", manifest_data(_PLAIN_CLASS, "coreml", class_functions=functions), "koala", 11),
        _loop("guidance built in", manifest_data(_BUILT_IN, format_version=2, distillation=_DISTILLATION), "koala", 13),
        _loop("a pack", base, None, 5, pack=pack_bytes()),
        _loop("a base alone", base, None, 5),
    ]


_BUILT_IN = {name: shape for name, shape in _PLAIN.items() if name != "guidance"}
_DISTILLATION = {"steps": [4, 2, 1], "guidance_scale": 3.0, "guidance_interval": [0.0, 1.0]}
_PLAIN_CLASS = {name: shape for name, shape in _PLAIN.items() if name != "class_index"}


def _one_program(**changes: Any) -> dict[str, Any]:
    """Where `step` chooses by itself which steps are guided, there is no `step_unguided`."""
    data = manifest_data(_PLAIN, **changes)
    for target in data["targets"].values():
        target["programs"].pop("step_unguided", None)
    return data


def _loop(
    what: str, data: dict[str, Any], name: str | None, seed: int, guidance: float | None = None,
    pack: bytes | None = None,
) -> dict[str, Any]:  # fmt: skip
    """A picture drawn by the Python loop: the latents after each step, and the pixels."""
    manifest = parse_manifest(json.dumps(data), what)
    generator = _toy_generator(manifest)
    if pack is not None:
        generator = generator.with_pack(_read(pack))
    names = [{info.id.lower(), *(n.lower() for n in info.names)} for info in manifest.classes]
    index = 0 if name is None else next(i for i, one in enumerate(names) if name.lower() in one)
    noise = start_noise(seed, manifest.latents_shape)
    trajectory = list(generator.trajectory(noise, index, guidance))
    return {
        "what": what, "manifest": data, "class": name, "seed": str(seed), "guidance": guidance,
        "pack": None if pack is None else base64.b64encode(pack).decode(),
        "latents": [[float(str(x)) for x in latents.reshape(-1)] for latents in trajectory],
        "rgb": generator.decode_picture(trajectory[-1]).reshape(-1).tolist(),
    }  # fmt: skip


def _toy(
    *, precision: str, threshold_db: float, is_base: bool = False, **changes: Any
) -> tuple[Generator, dict[str, Any]]:
    """A toy whose programs are called `precision` and were held to `threshold_db`, and its manifest's document."""
    if is_base:
        digest = {"file": "packs/a.pack", "sha256": "0" * 64, "size_bytes": 1}
        changes |= {"pack_base": _BASE, "packs": [{**one, **digest} for one in _CLASSES]}
    data = manifest_data(_DETACHED if is_base else _PLAIN, **changes)
    for target in data["targets"].values():
        target |= {"precision": precision, "parity": {**target["parity"], "threshold_db": threshold_db}}
    return _toy_generator(parse_manifest(json.dumps(data), "a ladder")), data


def _toy_generator(manifest: Manifest) -> Generator:
    programs: Mapping[str, ProgramSpec] = next(iter(manifest.targets.values())).programs
    functions = programs["step"].class_functions or {}
    steps = [lambda i=i: ToyProgram("step", i) for i in range(len(functions))]
    return Generator(
        manifest=manifest,
        sampling=manifest.sampling,
        latents_shape=manifest.latents_shape,
        spec=programs["step"],
        step=ClassPrograms(steps) if steps else ToyProgram("step"),
        decode=ToyProgram("decode"),
        step_unguided=ToyProgram("step_unguided") if "step_unguided" in programs else None,
    )


def _read(pack: bytes) -> Any:
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as folder:
        file = Path(folder) / "toy.pack"
        file.write_bytes(pack)
        return read_pack(file)


def main() -> None:
    for kit in KITS:
        (kit_folder(kit) / PLACES[kit]).write_text(format_vectors(), encoding="utf-8")
    NAMES.write_text(format_names(), encoding="utf-8")


if __name__ == "__main__":
    main()
