"""What a user asks of an export, checked before any heavy work."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import MISSING, dataclass, fields
from importlib.util import find_spec
from pathlib import Path

from kind_core.config.checks import require_choice
from kind_core.errors import ConfigError, TargetError
from kind_core.precisions import PRECISIONS, PrecisionName
from kind_core.samplers import ALL_STEPS, MAX_GUIDANCE, SAMPLERS, check_interval
from kind_export.budget import NO_BUDGET, Budget
from kind_export.target_rows import TARGET_ROWS
from kind_runtimes.engine_rows import ENGINES
from kind_runtimes.kits import KITS

# What the sources of a kit run: one of these.
KIT_TARGETS = {"ios": ("coreml",), "android": ("onnx", "litert")}

# what --target all means
TARGETS = tuple(row.name for row in TARGET_ROWS.values() if row.is_program and row.extra is None)
MIN_IOS = (17, 18)
BAKING_MODES = ("auto", "on", "off")
# What may be asked of packs for an existing base, and what is refused of any packs with words of its own.
_WITH_BASE = {"classes", "checkpoint", "from_diffusers", "output", "force", "packs", "base"}
_WITH_BASE |= {"blends", "class_functions"}
_OPTIONS = {"targets": "target", "kits": "kit", "devices": "device", "budget": "max-size"}  # by the name of a field


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportRequest:
    """One export. None means the checkpoint's (steps, sampler, guidance) or the target's (precision) default.

    `from_diffusers`: `checkpoint` is a diffusers folder with a dense DiT. `latents_only`: an autoencoder is left out.
    `force_steps`: a distilled model may take a number of steps that it was not trained for.
    """

    classes: tuple[str, ...]
    targets: tuple[str, ...]
    checkpoint: Path
    output: Path | None = None
    steps: int | None = None
    sampler: str | None = None
    guidance: float | None = None
    precision: PrecisionName | None = None
    min_ios: int = 17
    baking: str = "auto"
    blends: tuple[tuple[str, ...], ...] = ()
    guidance_interval: tuple[float, float] = ALL_STEPS
    max_rank: int | None = None
    energy: float | None = None
    class_functions: bool = False
    kits: tuple[str, ...] = ()
    packs: bool = False
    base: Path | None = None
    devices: tuple[str, ...] = ()
    budget: Budget = NO_BUDGET
    forms: str = "auto"
    from_diffusers: bool = False
    latents_only: bool = False
    force: bool = False
    strict: bool = False
    force_steps: bool = False

    def __post_init__(self) -> None:
        if not self.classes and not self.blends:
            raise ConfigError("no class was asked for", "add --classes NAME; kind-export classes lists them")
        if self.base is not None:
            self._check_packs_only()
        elif not self.targets:
            raise ConfigError("no target was asked for", "add --target coreml, onnx, executorch or all")
        for name in parse_targets(self.targets):
            _require_extra(name)
        if self.precision is not None:
            require_choice("precision", self.precision, PRECISIONS)
        if self.sampler is not None:
            require_choice("sampler", self.sampler, SAMPLERS)
        require_choice("min-ios", self.min_ios, MIN_IOS)
        require_choice("baking", self.baking, BAKING_MODES)
        if self.packs and self.baking == "off":
            raise ConfigError("packs hold a modulation table, but baking is 'off'", "leave out --baking or --packs")
        if self.packs and self.from_diffusers:
            raise ConfigError("the checkpoint has no tailors, so it has no packs", "export it without --packs")
        if self.steps is not None and self.steps < 1:
            raise ConfigError(f"steps is {self.steps}, expected 1 or more")
        if self.guidance is not None and not (math.isfinite(self.guidance) and abs(self.guidance) <= MAX_GUIDANCE):
            raise ConfigError(f"guidance is {self.guidance}, expected a finite number up to {MAX_GUIDANCE:g}")
        self._check_shortcuts()
        self._check_ios()
        self._check_pipeline()
        if self.base is None:
            check_kits(self.kits, parse_targets(self.targets))
        if self.class_functions:
            self._check_class_functions()
        if not self.budget.is_empty:
            self._check_budget()

    def _check_budget(self) -> None:
        """A plan is made for one target and, where time is limited, one device."""
        targets = parse_targets(self.targets)
        if len(targets) != 1:
            raise ConfigError(f"a budget is for one target, asked for {', '.join(targets)}", "export them one by one")
        if self.budget.is_timed and len(self.devices) != 1:
            given = ", ".join(self.devices) or "none"
            raise ConfigError(
                f"a limit of time is for one device, asked for {given}",
                "add --device NAME; kind-bench devices lists them",
            )
        if self.packs or self.class_functions:
            raise ConfigError("a budget goes with built-in classes in one program", "leave out the budget or the packs")

    def _check_ios(self) -> None:
        """Refuse what Core ML has from iOS 18 on before any work is done."""
        rows = [TARGET_ROWS[name] for name in parse_targets(self.targets) if TARGET_ROWS[name].is_for_ios]
        if self.min_ios >= 18 or not rows:
            return
        needs = {
            f"precision {self.precision!r}": any(self.precision in row.needs_ios_18 for row in rows),
            "a guidance interval": self.guidance_interval != ALL_STEPS,
        }
        for what in (name for name, is_asked in needs.items() if is_asked):
            raise TargetError(
                f"{what} of target {rows[0].name!r} needs iOS 18, min-ios is {self.min_ios}", "add --min-ios 18"
            )

    def _check_pipeline(self) -> None:
        """Refuse what a folder for Python cannot hold: it has the weights of each class as trained."""
        folder = next((name for name in parse_targets(self.targets) if not TARGET_ROWS[name].is_program), None)
        if folder is None:
            return
        given = {"packs": self.packs, "max-rank": self.max_rank is not None, "energy": self.energy is not None}
        given |= {"max-size and other limits": not self.budget.is_empty}
        for name in (name for name, is_given in given.items() if is_given):
            raise ConfigError(
                f"--{name} does not go with target {folder!r}, which holds the classes as trained",
                f"export {folder} without it",
            )

    def _check_shortcuts(self) -> None:
        check_interval(self.guidance_interval)
        if self.max_rank is not None and self.max_rank < 1:
            raise ConfigError(f"max-rank is {self.max_rank}, expected 1 or more")
        if self.energy is not None and not 0 < self.energy <= 1:
            raise ConfigError(f"energy is {self.energy:g}, expected a share above 0 up to 1", "for example 0.99")
        for blend in self.blends:
            if len(blend) < 2 or not all(blend):
                raise ConfigError(
                    f"blend {'+'.join(blend)!r} does not name two classes",
                    "for example --blend panda+koala; a name with a plus of its own in double quotes, or by its id",
                )
        if self.packs and self.blends:
            raise ConfigError("--blend goes with built-in classes, not with --packs", "leave one of them out")

    def _check_class_functions(self) -> None:
        """A function a class, which only Core ML has, and only from iOS 18 on."""
        if self.packs:
            raise ConfigError("--class-functions goes with built-in classes, not with --packs", "leave one of them out")
        targets = parse_targets(self.targets)
        able = [row.name for row in TARGET_ROWS.values() if row.has_class_functions]
        if not set(targets) <= set(able):
            raise ConfigError(
                f"class functions are for target {', '.join(able)} alone, asked for {', '.join(targets)}",
                "export the other targets without --class-functions",
            )
        if self.min_ios < 18:
            raise ConfigError(f"class functions need iOS 18, min-ios is {self.min_ios}", "add --min-ios 18")
        if self.guidance_interval != ALL_STEPS:
            raise ConfigError(
                "--class-functions does not go with --guidance-interval, whose steps are functions too",
                "leave one of them out",
            )
        if len(self.classes) + len(self.blends) < 2:
            raise ConfigError(
                "class functions are for two or more classes, asked for one", "leave --class-functions out"
            )

    def _check_packs_only(self) -> None:
        """Packs for an existing base: it has its targets and its sampling already."""
        if not self.packs:
            raise ConfigError("a base was given, but no packs were asked for", "add --packs")
        for field in fields(self):
            default = () if field.default is MISSING else field.default
            if field.name not in _WITH_BASE and getattr(self, field.name) != default:
                option = _OPTIONS.get(field.name, field.name.replace("_", "-"))
                raise ConfigError(f"--{option} goes with a new base only; this one has its own", "leave it out")


def parse_targets(names: Sequence[str]) -> list[str]:
    """`all` or target names, each once and in a fixed order; raises TargetError for an unknown one."""
    for name in names:
        if name not in (*TARGET_ROWS, "all"):
            raise TargetError(f"unknown target {name!r}, expected {', '.join(TARGET_ROWS)} or all", "use --target NAME")
    rows = TARGET_ROWS.values()
    return [row.name for row in rows if row.name in names or (row.name in TARGETS and "all" in names)]


def _require_extra(name: str) -> None:
    """Raise TargetError where a target needs an extra that is not installed, before anything is read."""
    extra, package = TARGET_ROWS[name].extra, ENGINES[name].package
    if extra is not None and find_spec(package) is None:
        raise TargetError(
            f"target {name!r} needs the package {package}, which is not installed",
            f"pip install 'kind-diffusion[{extra}]'",
        )


def check_kits(kits: Sequence[str], targets: Sequence[str]) -> None:
    """Raise a KindError for an unknown kit, or for one whose target is not exported."""
    for kit in kits:
        if kit not in KITS:
            raise ConfigError(f"unknown kit {kit!r}, expected {' or '.join(KITS)}", "use --kit NAME")
        runs = KIT_TARGETS[kit]
        if set(runs).isdisjoint(targets):
            raise TargetError(
                f"kit {kit!r} runs {' or '.join(runs)} programs, but the target is {', '.join(targets)}",
                f"add --target {runs[0]}",
            )
