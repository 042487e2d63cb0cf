"""`manifest.json` of a bundle."""

from __future__ import annotations

from typing import Annotated, Literal, NotRequired, TypedDict

from kind_runtimes.documents.parts import (
    TARGETS,
    TRAINING_DESCRIPTION,
    Distillation,
    PlainNatural,
    PlainPositive,
    Precision,
    Sha256,
    Text,
    Texts,
    Training,
)
from kind_runtimes.documents.schema import Alike, Def, Free, NamesOnly, Unsaid

ClassId = Annotated[
    str,
    "Letters of any alphabet, digits, `_`, `.` and `-`: an id is a file name.",
    {"pattern": r"^[^\u0000-/:-@\[-`{-\u007f][^\u0000-,/:-@\[-\^`{-\u007f]*$"},
    Def("id"),
]
Names = Annotated[Texts, Def("names")]
Shape = Annotated[list[PlainPositive], Def("shape")]


class ClassEntry(TypedDict):
    """A class of a bundle; of a blend with the ids that it was made of."""

    id: ClassId
    names: Names
    blend_of: NotRequired[Annotated[list[str], Unsaid()]]


class PackEntry(TypedDict):
    """A class that was exported as a pack."""

    id: ClassId
    names: Names
    file: str
    sha256: Sha256
    size_bytes: PlainNatural
    modulations_error_db: NotRequired[Annotated[float, "rms, below the range of the table."]]
    trajectory_psnr_db: NotRequired[Annotated[dict[str, object], "Against the eager model, by target."]]


class TensorEntry(TypedDict):
    """An input or output of a program."""

    name: str
    shape: Shape
    dtype: Literal["float32", "float16", "int32", "image_rgb_uint8"]


Tensor = Annotated[TensorEntry, Def("tensor")]


class ProgramEntry(TypedDict):
    """One program of a target: where it lies and how it is called."""

    file: str
    function: NotRequired[Annotated[str, "Which function or method of the file, where it holds several."]]
    class_functions: NotRequired[
        Annotated[
            dict[str, Text],
            "The function of each class by id, where the file holds one for each: call that of the class that is "
            "drawn, in place of an input class_index.",
            {"minProperties": 2},
        ]
    ]
    inputs: list[Tensor]
    outputs: list[Tensor]


class Parity(TypedDict):
    """How close programs came to the eager model."""

    verified_by: str
    threshold_db: float
    trajectory_psnr_db: float
    step_psnr_db: float


class EngineVersions(TypedDict):
    """The package of an engine and its versions."""

    package: str
    gate: str
    oldest: str


class TargetEntry(TypedDict):
    """What a bundle holds for one target."""

    precision: Precision
    programs: Annotated[
        dict[str, Annotated[ProgramEntry, Def("program")]],
        {"required": ["step"], "propertyNames": {"enum": ["step", "step_unguided", "decode"]}},
    ]
    parity: Annotated[Parity, NamesOnly()]
    lowering: NotRequired[Annotated[dict[str, dict[str, object]], Free()]]
    engine: NotRequired[
        Annotated[
            EngineVersions,
            Alike(str),
            "what runs the programs: `gate`, the version that ran the gates; `oldest`, the oldest tried",
        ]
    ]


class FileEntry(TypedDict):
    """A file of a bundle."""

    sha256: Sha256
    size_bytes: PlainNatural


class Source(TypedDict):
    """What was exported."""

    checkpoint_sha256: Sha256
    training: NotRequired[Annotated[Training, TRAINING_DESCRIPTION]]


class StudentDistillation(Distillation):
    """The same of a student whose learngene is its teacher's."""

    learngene: NotRequired[
        Annotated[Sha256, "sha256 of the learngene that the student's holds unchanged, beside an accelerator."]
    ]


class ManifestDocument(TypedDict):
    """The whole document."""

    format_version: Annotated[Literal[1, 2], "2 where no program takes a guidance scale."]
    name: Text
    classes: Annotated[list[ClassEntry], "In the order of class_index; of a base, those of its packs.", {"minItems": 1}]
    pack_base: NotRequired[Annotated[Sha256, "Of a base: the hash that the packs which fit it carry."]]
    packs: NotRequired[
        Annotated[list[PackEntry], "The classes exported with a base. The bundle may be shipped without their files."]
    ]
    steps: Annotated[PlainPositive, "step_index runs from 0 to steps - 1."]
    sampler: str
    guidance_interval: NotRequired[
        Annotated[list[float], "Guidance is on in steps i with lo <= i / steps < hi.", {"minItems": 2, "maxItems": 2}]
    ]
    guided_steps: NotRequired[
        Annotated[
            list[PlainNatural],
            "The steps with guidance, where it is not all of them. In the others call step_unguided, without "
            "guidance, where the target has it; where it has not, step chooses by itself.",
        ]
    ]
    guidance_scale: Annotated[float, "The default; any value may be given at run time."]
    distillation: NotRequired[
        Annotated[
            StudentDistillation,
            "There where the model was taught to draw in few steps: guidance is built in, and no program has an "
            "input for it.",
            {"additionalProperties": False},
        ]
    ]
    initial_noise_scale: Annotated[float, "Factor of the unit normals before step 0.", {"exclusiveMinimum": 0}]
    latents_shape: Shape
    noise_generator: Literal["philox4x32-10+box-muller/1"]
    source: Source
    tools: dict[str, str]
    rewrites: NotRequired[dict[str, object]]
    targets: Annotated[dict[str, TargetEntry], {"minProperties": 1, "propertyNames": {"enum": list(TARGETS)}}]
    files: Annotated[dict[str, FileEntry], "Every file of the bundle but this one and those with timings."]
