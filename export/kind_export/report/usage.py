"""How a bundle is used and made again: the code and the command that its report shows."""

from __future__ import annotations

import json
import shlex

from kind_runtimes.documents.reports.document import ReportDocument
from kind_runtimes.kits import kit_folder

_TITLES = {"swift": "In Swift, with the iOS kit", "kotlin": "In Kotlin, with the Android kit"}
# What the code of a README draws, a class, and what it is to draw of a bundle: another class or, of a base, a pack.
_DRAWN = {
    "swift": ('class: "panda"', "class: {}", "pack: Pack(contentsOf: file)"),
    "kotlin": ('generate("panda"', "generate({}", "generate(Pack.read(file)"),
}


def read_snippet(kit: str, report: ReportDocument) -> dict[str, str]:
    """The code of a kit's README that draws a picture, of the bundle's own first class, and where the rest stands."""
    text = (kit_folder(kit) / "README.md").read_text(encoding="utf-8").partition("## Use it")[2]
    language, _, code = text.partition("```")[2].partition("```")[0].partition("\n")
    shown, of_class, of_base = _DRAWN[language]
    drawn = of_base if report["packs"] else of_class.format(_quote(_name_first(report), language))
    return {"title": _TITLES[language], "code": code.rstrip().replace(shown, drawn), "readme": f"{kit}/README.md"}


def _name_first(report: ReportDocument) -> str:
    """The first class as an app may call it: by its name where no other class has that."""
    classes = report["classes"]
    name = next(iter(classes[0]["names"]), classes[0]["id"])
    return name if sum(name in info["names"] for info in classes) == 1 else classes[0]["id"]


def _quote(name: str, language: str) -> str:
    text = json.dumps(name, ensure_ascii=False)
    return text.replace("$", "\\$") if language == "kotlin" else text


def write_loop(report: ReportDocument) -> str:
    """The loop of an app, with the names of this bundle's inputs and outputs; lines short enough for a phone."""
    programs, sampling = next(iter(report["targets"].values()))["programs"], report["sampling"]
    step, decode = programs["step"], programs.get("decode")
    scale = "" if sampling["initial_noise_scale"] == 1 else f" * {sampling['initial_noise_scale']:g}"
    state = [spec["name"] for spec in step["inputs"] if spec["name"] in ("latents", "history")]
    lines = [f"shape = {tuple(report['latents_shape'])}", f"latents = start_noise(seed, shape){scale}"]
    lines += ["history = zeros(shape)"] if "history" in state else []
    lines += [f"for i in range({sampling['steps']}):", "    out = step("]
    lines += [f"        {name}={name}," for name in state]
    lines += ["        step_index=i,"]
    lines += [f"        guidance={sampling['guidance_scale']:g},"] if sampling.get("distillation") is None else []
    others = [s["name"] for s in step["inputs"] if s["name"] not in (*state, "step_index", "guidance")]
    chosen = [f"{name}={'0' if name == 'class_index' else f'pack.{name}'}" for name in others]
    lines += [*(f"        {one}," for one in chosen), "    )"]
    lines += [f'    {name} = out["next_{name}"]' for name in state]
    if decode is not None:
        lines.append(f'image = decode(latents)["{decode["outputs"][0]["name"]}"]')
    return "\n".join(lines)


def write_command(report: ReportDocument) -> str:
    sampling, targets, bundle = report["sampling"], report["targets"], f"{report['name']}.kind"
    precisions = {target["precision"] for target in targets.values()}
    plain = [info["id"] for info in report["classes"] if "blend_of" not in info]
    blends = ["+".join(info["blend_of"]) for info in report["classes"] if "blend_of" in info]
    options = {
        "--checkpoint": "CHECKPOINT",
        **({"--classes": ",".join(plain)} if plain else {}),
        "--target": ",".join(targets),
        "--sampler": sampling["sampler"],
        "--steps": str(sampling["steps"]),
        **({"--guidance": f"{sampling['guidance_scale']:g}"} if sampling.get("distillation") is None else {}),
        "--baking": "on" if report["rewrites"]["conditioning"] == "modulation table" else "off",
    }
    if len(precisions) == 1:  # where they differ, they are the targets' defaults
        options["--precision"] = precisions.pop()
    steps = (target["lowering"].get("step", {}) for target in targets.values())
    min_ios = next((step["min_ios"] for step in steps if "min_ios" in step), None)
    if min_ios is not None:
        options["--min-ios"] = str(min_ios)
    if len(sampling["guided_steps"]) < sampling["steps"]:
        options["--guidance-interval"] = ",".join(f"{share:g}" for share in sampling["guidance_interval"])
    options |= {
        f"--{name.replace('_', '-')}": f"{value:g}" for name, value in report["rewrites"].get("cut", {}).items()
    }
    options["--output"] = bundle
    words = [f"{option} {shlex.quote(value)}" for option, value in options.items()]
    words += [f"--blend {shlex.quote(blend)}" for blend in blends] + (["--packs"] if report["packs"] else [])
    return " \\\n  ".join(["kind-export", *words])
