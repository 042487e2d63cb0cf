"""Folders of strangers: all that a bundle, a checkpoint or a pipeline folder can hold to run code of its maker's."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from diffusers_folders import write_folder
from kind_core.checkpoint import save_checkpoint
from kind_core.files.hashing import hash_file
from kind_runtimes.bundle import MANIFEST_NAME, list_files
from tiny import tiny_config, tiny_model, tiny_model_config
from tiny_autoencoder import save_autoencoder

_MODULES = ("pipeline", "__init__", "modeling", "configuration", "tokenizer", "sitecustomize", "conftest", "setup")
# what the programs themselves import, for whoever stands in the folder
SHADOWS = ("numpy", "torch", "yaml", "click", "rich", "onnxruntime", "safetensors", "kind_core")


class Trap:
    """Code that leaves a mark where it runs."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark
        self.code = f"open({str(mark)!r}, 'a').write('it ran')\n"

    @property
    def went_off(self) -> bool:
        return self.mark.exists()

    def pickle(self) -> bytes:
        """Weights that run where they are unpickled without care."""
        code = self.code

        class Evil:
            def __reduce__(self) -> tuple[Any, ...]:
                return (exec, (code,))

        return pickle.dumps({"weight": Evil()})

    def put_code(self, folder: Path, *, names: Iterable[str] = _MODULES) -> None:
        """Python files beside what is there, and a config that names them as what its weights need."""
        folder.mkdir(parents=True, exist_ok=True)
        for name in names:
            (folder / f"{name}.py").write_text(self.code)

    def spoil_bundle(self, folder: Path) -> Path:
        """Put a diffusers folder whose pipeline.py is the trap before the programs of a bundle; every hash is right."""
        self.put_code(folder / "diffusers")
        self.put_code(folder / "diffusers" / "vae")
        index = {"_class_name": ["pipeline", "Trap"], "_diffusers_version": "0.42.1", "vae": ["vae", "Trap"]}
        (folder / "diffusers" / "model_index.json").write_text(json.dumps(index))
        data = json.loads((folder / MANIFEST_NAME).read_text())
        one = next(iter(data["targets"].values()))
        files = {"step": "diffusers", "decode": "diffusers/pipeline.py"}
        programs = {name: one["programs"][name] | {"file": file} for name, file in files.items()}
        code = one | {"programs": programs, "precision": "fp32"}
        data["targets"] = {"diffusers": code} | data["targets"]
        data["files"] = {name: {"sha256": hash_file(folder / name), "size_bytes": 1} for name in list_files(folder)}
        (folder / MANIFEST_NAME).write_text(json.dumps(data))
        return folder

    def write_checkpoint(self, folder: Path) -> None:
        """A checkpoint that loads, with code and pickles in every place of it."""
        config = tiny_model_config(tiny_config(num_classes=2), noise_schedule="squaredcos_cap_v2", steps=2)
        save_checkpoint(folder, config, tiny_model(config.dit))
        self._spoil(folder)

    def write_pipeline(self, folder: Path) -> None:
        """A diffusers DiT that loads, with the same; its index names the code as its pipeline."""
        write_folder(folder)
        index = json.loads((folder / "model_index.json").read_text())
        (folder / "model_index.json").write_text(json.dumps(index | {"_class_name": ["pipeline", "Trap"]}))
        for part in (folder, folder / "transformer", folder / "scheduler"):
            self._spoil(part)
        config = json.loads((folder / "transformer" / "config.json").read_text())
        config |= {"auto_map": {"AutoModel": "modeling.Trap"}, "trust_remote_code": True}
        (folder / "transformer" / "config.json").write_text(json.dumps(config))

    def write_autoencoder(self, folder: Path) -> None:
        """An autoencoder whose weights are a pickle alone."""
        save_autoencoder(folder, "AutoencoderTiny")
        self._spoil(folder)
        (folder / "diffusion_pytorch_model.safetensors").unlink()

    def _spoil(self, folder: Path) -> None:
        self.put_code(folder)
        for name in ("pytorch_model.bin", "diffusion_pytorch_model.bin", "model.pt", "learngene.bin"):
            (folder / name).write_bytes(self.pickle())
