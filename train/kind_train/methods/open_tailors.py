"""Table 4, #3: the learngene, frozen, and a tailor for every new class, with all gates open for every image.

Nothing then tells one tailor from another: they are components that serve every class. They start with s at zero.
"""

from __future__ import annotations

from kind_train.methods.shared.grown_linear import GrownMethod


class OpenTailors(GrownMethod):
    name, title = "open-tailors", "learngene + tailors without gates (#3)"
    as_lora = False


METHOD = OpenTailors()
