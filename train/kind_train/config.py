"""Options of a training run: a preset or a YAML file, then flags. The finished options are written beside the run."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING

from kind_core.config.checks import require_seed
from kind_core.errors import ConfigError
from kind_train.class_guidance import parse_class_guidance
from kind_train.preset_options import DEFAULT_PRESET, RECIPES

if TYPE_CHECKING:
    from kind_core.config import DiffusionConfig

REPORTS = ("tensorboard", "wandb", "csv")
OPTIONS_NAME, HELD_OUT_NAME = "options.yaml", "held_out.json"  # in the folder of a run
NEAREST = "nearest"  # of `init_from`: the class of the base that predicts the photos best
TAILORS = "tailors"
# Ways of adapting a base: where the class of each is in `kind_train.methods`.
METHODS = {
    TAILORS: "plain:Tailors",
    "full-ft": "plain:FullFineTuning",
    "lora": "peft_methods:Lora",
    "pissa": "peft_methods:Pissa",
    "dora": "peft_methods:Dora",
    "loha": "peft_methods:Loha",
    "oft": "peft_methods:Oft",
    "boft": "peft_methods:Boft",
    "svdiff": "adapted:SvDiff",
    "fact-tt": "adapted:FactTt",
    "heur-lg": "plain:HeurLg",
    "auto-lg": "plain:AutoLg",
    "svd-lora": "grown:SvdLora",
    "learngene-lora": "grown:LearngeneLora",
    "open-tailors": "grown:OpenTailors",
}
FACTORS = ("free", "cayley")
CONSTRUCTIONS = ("laptop-diff", "heur-lg", "auto-lg")  # of smaller models, see `kind_train.start.shrinking`
PRECISIONS = ("auto", "fp32", "bf16")
MAX_SIDE = 8192  # of photos, in pixels
MATCH_SIZE = 64  # side at which a classifier compares pictures with photos
MAX_BATCH_SIZE = 65_536  # twice the largest that anybody trained images with
_MOST = 2**63 - 1  # of any number
# What an option annotated so may hold, and how an error calls that. A bool is an int to Python, but not to a user.
_KINDS: dict[str, tuple[tuple[type, ...], str]] = {
    "str": ((str,), "text"),
    "str | None": ((str, type(None)), "text"),
    "int": ((int,), "a whole number"),
    "int | None": ((int, type(None)), "a whole number"),
    "float": ((int, float), "a number"),
    "float | None": ((int, float, type(None)), "a number"),
    "bool": ((bool,), "true or false"),
    "tuple[str, ...]": ((tuple,), "a list of names"),
    "tuple[int, ...]": ((tuple,), "a list of whole numbers"),
}
_PARTS: dict[str, tuple[tuple[type, ...], str]] = {
    "tuple[str, ...]": ((str,), "text"),
    "tuple[int, ...]": ((int,), "a whole number"),
}
# What a distillation trains: all of the student, its tailors alone beside the teacher's learngene, its modulations
# alone beside both, new components for every class beside both, or these and the modulations.
EVERYTHING, TABLE, ACCELERATOR, BOTH = "everything", "table", "accelerator", "accelerator-table"
ARMS = (EVERYTHING, TAILORS, TABLE, ACCELERATOR, BOTH)
GROWS = (ACCELERATOR, BOTH)


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """Everything that decides a run. `images` counts training images seen, not photos in the data set.

    `recipe` names what was set by one word, see `RECIPES`; `max_grad_norm` infinite clips nothing.
    `preset` None is the architecture of `start_from` where one is given, else `sample`.
    The learning rate warms up over `warmup_images`, stays, and falls linearly to zero over the last `decay_fraction`.
    `size` is the side of the photos in pixels, where it is not the preset's; `report_to` is sent the metrics, too.
    `noise_schedule` is trained on instead of the preset's; along `flow` the times of a batch are sigmoid(normal), of
    mean `timestep_mean` and deviation `timestep_std`.
    `perceptual` weighs how unlike predicted picture and photo look to a classifier's first stages, see
    `kind_train.run.terms.perceptual`; `repa` how unlike the likenesses between a photo's parts are inside the model
    and in the eyes of that classifier, see `kind_train.run.terms.relations`.
    `factors` are free, or those of the learngene have orthonormal columns: see `kind_train.start.orthogonal`.
    With `match`, a dense checkpoint, the model learns its predictions and the features after `match_blocks` of it, one
    for each block of the model: see `kind_train.run.terms.matching`.
    Without `diversion` every component of every class takes part for every image, see `kind_train.start.diversion`.
    With `base`, the checkpoint that is adapted by `method`, its architecture counts instead of the preset's;
    `tailor_rank` is that of the new tailors, and sets the budget of every other method; `init_from` says how tailors
    start. A base that draws from captions takes theirs embedded from the cache `text_embeddings`, with the null caption
    in the place of a share `caption_dropout`, by default 0.1.
    With `teacher` a student of that checkpoint is trained to draw in `steps` steps, the most first, what the teacher
    draws with guidance; `train` says what of the student, `start_from` an earlier student of the same teacher. `follow`
    weighs the teacher's steps, `match_photos` how unlike the photos of a class the pictures are that the student draws
    from noise, see `kind_train.run.terms.energy`: by EfficientNet-Lite0 at side `match_size` and by the classifier at
    `match_classifier`, with the guidance of `class_guidance`, each `NAME=SCALE`, for the classes that it names. By
    photos alone it may learn to draw a larger `size`.
    """

    data: str
    output: str
    recipe: str | None = None
    preset: str | None = None
    size: int | None = None
    noise_schedule: str | None = None
    timestep_mean: float | None = None
    timestep_std: float | None = None
    perceptual: float = 0.0
    repa: float = 0.0
    diversion: bool = True
    factors: str = "free"
    match: str | None = None
    match_blocks: tuple[int, ...] = ()
    start_from: str | None = None
    base: str | None = None
    method: str = TAILORS
    init_from: str | None = None
    tailor_rank: int | None = None
    text_embeddings: str | None = None
    caption_dropout: float | None = None
    teacher: str | None = None
    steps: tuple[int, ...] = ()
    train: str = EVERYTHING
    accelerator_rank: int = 16
    guidance: float | None = None
    follow: float = 1.0
    match_photos: float = 0.0
    match_size: int = MATCH_SIZE
    match_classifier: str | None = None
    class_guidance: tuple[str, ...] = ()
    val_data: str | None = None
    val_fraction: float = 0.05
    classes: tuple[str, ...] = ()
    images: int = 250_000
    batch_size: int = 64
    learning_rate: float = 1e-4
    warmup_images: int = 0
    decay_fraction: float = 0.0
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    ema_decay: float = 0.9999
    label_dropout: float = 0.1
    flip: bool = True
    seed: int = 0
    device: str = "auto"
    precision: str = "auto"
    compile: bool = False
    shard: bool = False
    checkpoint_activations: bool = False
    strict: bool = False
    save_every: int = 20_000
    sample_every: int = 20_000
    report_to: str | None = None

    def __post_init__(self) -> None:
        for f in fields(self):
            _require_kind(f.name, getattr(self, f.name), str(f.type))
        for name in ("images", "batch_size", "save_every", "sample_every"):
            self._require(name, getattr(self, name) >= 1, "1 or more")
        self._require("batch_size", self.batch_size <= MAX_BATCH_SIZE, f"{MAX_BATCH_SIZE} at most")
        for name in ("val_fraction", "decay_fraction", "label_dropout"):
            self._require(name, 0 <= getattr(self, name) < 1, "0 to below 1")
        for name in ("learning_rate", "max_grad_norm"):
            self._require(name, getattr(self, name) > 0, "a positive number")
        self._require("learning_rate", math.isfinite(self.learning_rate), "a finite number")
        self._require("ema_decay", 0 < self.ema_decay < 1, "above 0 and below 1")
        self._require("weight_decay", 0 <= self.weight_decay < math.inf, "0 or more")
        self._require("warmup_images", self.warmup_images >= 0, "0 or more")
        require_seed(self.seed)
        self._require("recipe", self.recipe is None or self.recipe in RECIPES, f"one of {', '.join(RECIPES)}")
        self._require("recipe", self.recipe is None or self.base is None, "none where a base is adapted")
        self._require("precision", self.precision in PRECISIONS, f"one of {', '.join(PRECISIONS)}")
        self._require("compile", not (self.compile and self.shard), "false where the model is sharded")
        for name in ("perceptual", "repa", "follow", "match_photos"):
            self._require(name, 0 <= getattr(self, name) < math.inf, "0 or more")
        self._require("repa", not (self.repa and (self.shard or self.compile)), "0 in a sharded or compiled run")
        self._require("timestep_std", self.timestep_std is None or 0 < self.timestep_std < math.inf, "above 0")
        self._require("timestep_mean", self.timestep_mean is None or math.isfinite(self.timestep_mean), "finite")
        self._require("size", self.size is None or 1 <= self.size <= MAX_SIDE, f"1 to {MAX_SIDE}")
        self._require("report_to", self.report_to in (None, *REPORTS), f"one of {', '.join(REPORTS)}")
        self._require("factors", self.factors in FACTORS, f"one of {', '.join(FACTORS)}")
        is_plain = self.base is None and self.teacher is None
        for name, is_set in (("factors", self.factors != "free"), ("match", self.match is not None)):
            self._require(name, is_plain or not is_set, "nothing where a base is adapted or a teacher distilled")
            self._require(name, not (is_set and (self.shard or self.compile)), "nothing in a sharded or compiled run")
        self._require("match_blocks", (self.match is None) == (not self.match_blocks), "blocks where `match` is given")
        self._check_adaptation()
        self._check_captions()
        self._check_distillation()

    def _check_adaptation(self) -> None:
        self._require("method", self.method in METHODS, f"one of {', '.join(METHODS)}")
        if self.base is None:
            for name in ("init_from", "tailor_rank"):
                self._require(name, getattr(self, name) is None, "none without a base: it is for kind-train adapt")
            self._require("method", self.method == TAILORS, f"{TAILORS!r} without a base: it is for kind-train adapt")
            return
        if self.method != TAILORS:
            self._require("init_from", self.init_from is None, f"none where method is {self.method!r}, not {TAILORS!r}")
        self._require("diversion", self.diversion, "true where a base is adapted")
        for name in ("start_from", "noise_schedule", "size"):
            self._require(name, getattr(self, name) is None, "none where a base is adapted")
        is_right = self.label_dropout == 0 or self.method != TAILORS
        self._require("label_dropout", is_right, "0 where the learngene is frozen: no label, no tailor")
        self._require("tailor_rank", self.tailor_rank is None or self.tailor_rank >= 1, "1 or more")

    def _check_captions(self) -> None:
        if self.text_embeddings is None:
            self._require("caption_dropout", self.caption_dropout is None, "none without --text-embeddings")
            return
        self._require("text_embeddings", self.base is not None, "none without a base: they are for kind-train adapt")
        self._require("method", self.method == TAILORS, f"{TAILORS!r} where a model draws from captions")
        self._require("repa", not self.repa, "0 where a model draws from captions")
        self._require("caption_dropout", 0 <= self.null_captions < 1, "0 to below 1")

    def _check_distillation(self) -> None:
        self._require("train", self.train in ARMS, f"one of {', '.join(ARMS)}")
        self._require("accelerator_rank", self.accelerator_rank >= 1, "1 or more components")
        if self.teacher is None:
            for name in ("steps", "guidance"):
                self._require(name, not getattr(self, name), "none without a teacher: it is for kind-train distill")
            self._require("match_photos", not self.match_photos, "0 without a teacher: it is for kind-train distill")
            self._require_no_eyes("without a teacher: it is for kind-train distill")
            self._require("follow", self.follow == 1, "1 without a teacher: it is for kind-train distill")
            return
        self._require("steps", bool(self.steps), "numbers of steps, for example --steps 4,2,1")
        self._require("diversion", self.diversion, "true where a teacher is distilled")
        for name in ("preset", "noise_schedule", "base", "timestep_mean", "timestep_std"):
            self._require(name, getattr(self, name) is None, "none where a teacher is distilled")
        self._require("repa", not self.repa, "0 where a teacher is distilled")
        self._require("follow", bool(self.follow or self.match_photos), "above 0 where match_photos is 0")
        self._require("perceptual", not self.perceptual or self.follow > 0, "0 where no teacher is followed")
        self._require("match_photos", not self.match_photos or self.batch_size > 1, "0 in batches of one")
        self._require("match_size", 32 <= self.match_size <= 224, "32 to 224 pixels")
        parse_class_guidance(self.class_guidance)
        if not self.match_photos:
            self._require_no_eyes("where match_photos is 0")

    def _require_no_eyes(self, where: str) -> None:
        """Nobody is to look at photos that are not matched."""
        self._require("match_size", self.match_size == MATCH_SIZE, f"{MATCH_SIZE} {where}")
        self._require("match_classifier", self.match_classifier is None, f"none {where}")
        self._require("class_guidance", not self.class_guidance, f"none {where}")

    def _require(self, name: str, is_right: bool, expected: str) -> None:
        if not is_right:
            raise ConfigError(f"{name} is {getattr(self, name)!r}, expected {expected}")

    @property
    def preset_name(self) -> str:
        """The preset whose architecture is trained where no checkpoint says it."""
        return self.preset or DEFAULT_PRESET

    @property
    def null_captions(self) -> float:
        """The share of images that are trained with the null caption."""
        return 0.1 if self.caption_dropout is None else self.caption_dropout

    @property
    def num_steps(self) -> int:
        return -(-self.images // self.batch_size)

    def learning_rate_at(self, step: int) -> float:
        """Learning rate of optimiser step `step`, from 0."""
        done = step * self.batch_size
        warm = min(1.0, (done + self.batch_size) / self.warmup_images) if self.warmup_images else 1.0
        left = (self.num_steps - step) / max(1.0, self.decay_fraction * self.num_steps)
        return self.learning_rate * min(warm, left if self.decay_fraction else 1.0, 1.0)

    def to_yaml(self) -> str:
        import yaml

        data = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}
        return str(yaml.safe_dump(data, sort_keys=False))


def _require_kind(name: str, value: object, kind: str) -> None:
    types, expected = _KINDS[kind]
    is_right = isinstance(value, types) and (kind == "bool" or not isinstance(value, bool))
    if not is_right:
        raise ConfigError(f"{name} is {value!r}, expected {expected}")
    if isinstance(value, int) and abs(value) > _MOST:  # of what is larger no float can be made
        raise ConfigError(f"{name} is {value!r:.60}, expected {_MOST} at most")
    of_part, expected_part = _PARTS.get(kind, ((), ""))
    for part in value if isinstance(value, tuple) else ():
        if not isinstance(part, of_part) or isinstance(part, bool):
            raise ConfigError(f"{name} holds {part!r}, expected {expected_part}")


def check_timesteps(config: DiffusionConfig, **options: float | None) -> None:
    """Raise ConfigError where one of the `options` that shape the times of a straight path is given for another."""
    for name, value in options.items():
        if value is not None and config.noise_schedule != "flow":
            raise ConfigError(
                f"{name} is {value:g}, but noise_schedule is {config.noise_schedule!r}, whose timesteps are all alike",
                f"add --noise-schedule flow, or leave out --{name.replace('_', '-')}",
            )
