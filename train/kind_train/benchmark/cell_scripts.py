"""Scripts that hand the cells of a suite to an engine: `kind-train benchmark ... --script ENGINE`.

A cell is one command, `kind-train benchmark ... --cell NAME`. Nothing here starts one, and no engine is imported: who
runs the script has it. No torch is loaded.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True, slots=True)
class CellCommands:
    """The commands of `cells`: what `command` and a cell's name make, each started in `folder`.

    `wants_gpu`: they were given a CUDA device, so that an engine has to find one for each.
    """

    title: str
    command: Sequence[str]
    folder: Path
    cells: Sequence[str]
    wants_gpu: bool = False


def _write_shell(asked: CellCommands) -> str:
    return f"""#!/usr/bin/env bash
# {asked.title}, JOBS at a time [1]:  JOBS=4 bash cells.sh
cd {shlex.quote(str(asked.folder))} || exit 1
{_bash_list(asked.cells)}
printf '%s\\0' "${{cells[@]}}" | xargs -0 -n 1 -P "${{JOBS:-1}}" \\
  {shlex.join(asked.command)} --cell
"""


def _write_slurm(asked: CellCommands) -> str:
    gpu = "#SBATCH --gpus=1\n" if asked.wants_gpu else ""
    return f"""#!/usr/bin/env bash
#SBATCH --job-name=kind-cells
#SBATCH --array=0-{len(asked.cells) - 1}
#SBATCH --requeue
{gpu}# {asked.title}:  sbatch cells.sh, with your partition, time and memory
cd {shlex.quote(str(asked.folder))} || exit 1
{_bash_list(asked.cells)}
exec {shlex.join(asked.command)} --cell "${{cells[$SLURM_ARRAY_TASK_ID]}}"
"""


def _write_torchrun(asked: CellCommands) -> str:
    gpu = """
gpus = environment.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(int(os.environ["LOCAL_WORLD_SIZE"]))))
environment["CUDA_VISIBLE_DEVICES"] = gpus.split(",")[int(os.environ["LOCAL_RANK"])]"""
    return f'''"""{asked.title}:  torchrun --nproc-per-node 4 cells.py

A process makes one cell after the other; of GPUs each has its own. More machines that share the folder: --nnodes.
"""

import os
import subprocess
import sys
from datetime import timedelta

import torch.distributed as dist

{_python_head(asked)}
# a cell is trained by one process: it must not take torchrun's for its own
OF_TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_", "GROUP_", "ROLE_", "MASTER_", "TORCHELASTIC_")
environment = {{name: value for name, value in os.environ.items() if not name.startswith(OF_TORCHRUN)}}{
        gpu if asked.wants_gpu else ""
    }
dist.init_process_group("gloo", timeout=timedelta(days=365))  # who is done first waits for the others
rank, count = dist.get_rank(), dist.get_world_size()
failed = [one for one in CELLS[rank::count] if subprocess.call([*COMMAND, "--cell", one], cwd=FOLDER, env=environment)]
of_all = [None] * count
dist.all_gather_object(of_all, failed)
dist.destroy_process_group()
if any(of_all):
    sys.exit("failed: " + ", ".join(one for each in of_all for one in each) if rank == 0 else 1)
'''


def _write_ray(asked: CellCommands) -> str:
    return f'''"""{asked.title}:  RAY_ADDRESS=auto python cells.py, or without an address on this machine alone

All machines share the folder.
"""

import subprocess
import sys

import ray

{_python_head(asked)}

@ray.remote(num_cpus=1, num_gpus={int(asked.wants_gpu)})
def make(cell):
    return subprocess.call([*COMMAND, "--cell", cell], cwd=FOLDER)


ray.init()
codes = ray.get([make.remote(cell) for cell in CELLS])
failed = [cell for cell, code in zip(CELLS, codes) if code]
if failed:
    sys.exit("failed: " + ", ".join(failed))
'''


# Each writes a script that makes every cell once; the order is that of the help.
SCRIPTS: Mapping[str, Callable[[CellCommands], str]] = {
    "shell": _write_shell,
    "slurm": _write_slurm,
    "torchrun": _write_torchrun,
    "ray": _write_ray,
}


def _bash_list(cells: Sequence[str]) -> str:
    return "\n".join(["cells=(", *(f"  {shlex.quote(cell)}" for cell in cells), ")"])


def _python_head(asked: CellCommands) -> str:
    cells = "\n".join(["CELLS = [", *(f"    {cell!r}," for cell in asked.cells), "]"])
    return f"FOLDER = {str(asked.folder)!r}\nCOMMAND = {list(asked.command)!r}\n{cells}\n"
