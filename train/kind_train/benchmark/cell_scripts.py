"""Scripts that hand the cells of a suite to an engine: `kind-train benchmark ... --script ENGINE`.

A cell is one command, `kind-train benchmark ... --cell NAME`. Nothing here starts one, and no engine is imported: who
runs the script has it. Each makes every cell once, as its template in `templates/` says. No torch is loaded.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

SCRIPTS = ("shell", "slurm", "torchrun", "ray")  # in the order of the help


def write_script(
    engine: str, *, title: str, command: Sequence[str], folder: Path, cells: Sequence[str], wants_gpu: bool
) -> str:
    """The script by which `engine` runs `command --cell NAME` in `folder` for each of `cells`.

    `wants_gpu`: they were given a CUDA device, so that an engine has to find one for each.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("kind_train"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"quote": shlex.quote, "words": shlex.join, "repr": repr}
    template = environment.get_template(f"cells.{engine}.j2")
    return template.render(title=title, command=list(command), folder=str(folder), cells=cells, wants_gpu=wants_gpu)
