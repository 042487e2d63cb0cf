"""What several documents have in common."""

from __future__ import annotations

from typing import Annotated, NotRequired, TypedDict

from kind_core.precisions import PRECISIONS
from kind_runtimes.documents.schema import Def, OneOf
from kind_runtimes.engine_rows import ENGINES, holds_code

# the order in which the published schemas have had them from the start; the others stand behind, as in their table
_FIRST = ("coreml", "onnx", "executorch")
TARGETS = tuple(sorted(ENGINES, key=lambda name: _FIRST.index(name) if name in _FIRST else len(_FIRST)))

PlainNatural = Annotated[int, {"minimum": 0}]
PlainPositive = Annotated[int, {"minimum": 1}]
Positive = Annotated[int, {"minimum": 1}, Def("positive")]
Natural = Annotated[int, {"minimum": 0}, Def("natural")]
Milliseconds = Annotated[float, {"minimum": 0}, Def("milliseconds")]
Shape = Annotated[list[Positive], Def("shape")]
Text = Annotated[str, {"minLength": 1}]
Texts = Annotated[list[str], {"minItems": 1}]
PlainSha256 = Annotated[str, {"pattern": "^[0-9a-f]{64}$"}]
Sha256 = Annotated[PlainSha256, Def("sha256")]
Precision = Annotated[str, OneOf(tuple(PRECISIONS))]
TargetName = Annotated[str, OneOf(TARGETS)]
# whose work is counted, and so forecast
ProgramTarget = Annotated[str, OneOf(tuple(name for name in TARGETS if not holds_code(name)))]


class Training(TypedDict):
    """How far weights were trained."""

    images: PlainPositive
    held_out_loss: NotRequired[float]
    mean_image_loss: NotRequired[Annotated[float, {"exclusiveMinimum": 0}]]


# Of the source of a bundle.
TRAINING_DESCRIPTION = (
    "How far the weights were trained: images seen, the loss of held-out photos, and that of a guess from their mean "
    "image."
)


class Distillation(TypedDict):
    """There where the model was taught to draw in few steps."""

    steps: Annotated[
        list[PlainPositive],
        "The numbers of steps that were trained, most first; another number in steps is approximate.",
        {"minItems": 1},
    ]
    guidance_scale: Annotated[float, "What is built in."]
    guidance_interval: Annotated[list[float], {"minItems": 2, "maxItems": 2}]
