"""Files of strangers: what has no end is not read, and what is no text, no number or no tree of values is one line."""

from __future__ import annotations

import codecs
import os
import sys
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import pytest
from click.testing import CliRunner

from kind_bench.forecasting.devices import load_device, read_device
from kind_bench.results.results import read_results
from kind_core.checkpoint import load_checkpoint, read_config
from kind_core.classes import ClassInfo
from kind_core.errors import ClassNameError, ConfigError, KindError
from kind_core.files.hashing import hash_file
from kind_core.files.json_files import parse_json, read_json
from kind_core.files.regular_files import read_text
from kind_runtimes.bundle import read_manifest
from kind_runtimes.inspection import inspect_path
from kind_runtimes.packs import read_pack
from kind_train.options_file import check_options, load_options

posix = pytest.mark.skipif(sys.platform == "win32", reason="a system with pipes that have names")


def _pipe(file: Path) -> None:
    os.mkfifo(file)


def _device(file: Path) -> None:
    file.symlink_to("/dev/zero")


def _loop(file: Path) -> None:
    file.symlink_to(file.name)


READERS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "manifest": ("manifest.json", lambda file: read_manifest(file.parent)),
    "config": ("config.json", lambda file: read_config(file.parent)),
    "pack": ("a.pack", read_pack),
    "program": ("step.onnx", inspect_path),
    "results": ("here.json", read_results),
    "device": ("phone.json", read_device),
    "device table": ("phone.toml", read_device),
    "options": ("options.yaml", check_options),
}


@posix
@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("make", [_pipe, _device, _loop])
@pytest.mark.timeout(20)
def test_what_has_no_end_is_not_read(tmp_path: Path, reader: str, make: Callable[[Path], None]) -> None:
    name, read = READERS[reader]
    make(tmp_path / name)
    with pytest.raises(KindError) as error:
        read(tmp_path / name)
    assert "\n" not in error.value.message


EDITORS: dict[str, Callable[[str], bytes]] = {
    "Notepad's UTF-8": lambda text: text.replace("\n", "\r\n").encode("utf-8-sig"),
    "PowerShell's UTF-16": lambda text: codecs.BOM_UTF16_LE + text.replace("\n", "\r\n").encode("utf-16-le"),
    "big-endian UTF-16": lambda text: codecs.BOM_UTF16_BE + text.encode("utf-16-be"),
    "old line ends": lambda text: text.replace("\n", "\r").encode(),
}


@pytest.mark.parametrize("editor", EDITORS)
def test_text_is_read_as_editors_write_it(tmp_path: Path, editor: str) -> None:
    def write(name: str, text: str) -> Path:
        (tmp_path / name).write_bytes(EDITORS[editor](text))
        return tmp_path / name

    options = load_options(write("options.yaml", "data: Küche\noutput: Läufe\nimages: 5\n"), {})
    assert (options.data, options.output, options.images) == ("Küche", "Läufe", 5)
    shipped = files("kind_bench") / "devices" / "apple-a15.toml"
    device = read_device(write("apple-a15.toml", shipped.read_text(encoding="utf-8")))
    assert device.name == load_device("apple-a15").name
    assert read_json(write("a.json", '{"a": "Ærø"}')) == {"a": "Ærø"}


@pytest.mark.parametrize(("data", "words"), [
    ("Ü: 5".encode("cp1252"), "is not YAML"), ("images: 5".encode("utf-16-le"), "holds NUL"),
    (codecs.BOM_UTF16_LE + b"i", "is not YAML"), (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer"),
])  # fmt: skip
def test_what_is_no_text_is_one_line(tmp_path: Path, data: bytes, words: str) -> None:
    (tmp_path / "options.yaml").write_bytes(data)
    with pytest.raises(ConfigError, match=words) as error:
        check_options(tmp_path / "options.yaml")
    assert "\n" not in error.value.message


@posix
@pytest.mark.parametrize("name", ["learngene.safetensors", "tailors/n02510455.safetensors"])
@pytest.mark.timeout(20)
def test_weights_are_files_with_an_end(checkpoint_path: Path, name: str) -> None:
    (checkpoint_path / name).unlink()
    os.mkfifo(checkpoint_path / name)
    with pytest.raises(KindError, match="is no regular file"):
        load_checkpoint(checkpoint_path)


@posix
@pytest.mark.timeout(20)
def test_nothing_is_hashed_or_read_without_an_end(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for read in (hash_file, read_text):
        with pytest.raises(OSError, match="is no regular file"):
            read(tmp_path / "pipe")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('"\\ud800"', "half a surrogate pair"), ('{"\\udfff": 1}', "half a surrogate pair"),
        ("[" * 200 + "]" * 200, "nested too deeply"), ("[" * 100_000, "nested too deeply"),
        ("9" * 5000, "a number of 5000 digits"), ("NaN", "NaN is no JSON number"), ("1e999", "larger than any number"),
    ],
)  # fmt: skip
def test_json_that_no_program_can_hold_is_refused(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_json(text, is_strict=True)


def test_ordinary_json_is_read() -> None:
    assert parse_json('{"a": [1, 2.5, "\\ud83d\\ude00", null, 1e300]}', is_strict=True) == {
        "a": [1, 2.5, "\U0001f600", None, 1e300]
    }


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a: &a [x, x]\nb: [*a, *a]", "has an alias"), ("output: &x [*x]", "has an alias"),
        ("output: " + "[" * 50_000, "nested too deeply"), ("images: " + "9" * 6000, "is not YAML"),
        ("data: p\noutput: o\nbatch_size: 1000000000000", "batch_size is 1000000000000, expected 65536 at most"),
    ],
)  # fmt: skip
@pytest.mark.timeout(20)
def test_yaml_that_grows_is_refused(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "options.yaml").write_text(text)
    with pytest.raises(ConfigError, match=reason):
        load_options(tmp_path / "options.yaml", {})


@pytest.mark.parametrize("name", ["n" * 5000, "/".join(["d"] * 3000)])
@pytest.mark.parametrize(
    ("module", "arguments"),
    [
        ("kind_runtimes", ["inspect"]),
        ("kind_bench", ["compare", "x.json"]),
        ("kind_export", ["classes", "--checkpoint"]),
    ],
)
def test_a_name_that_no_system_takes_is_one_line(module: str, arguments: list[str], name: str) -> None:
    from importlib import import_module

    result = CliRunner().invoke(import_module(f"{module}.cli").main, [*arguments, name])
    assert result.exit_code in (1, 2)
    assert isinstance(result.exception, SystemExit)
    assert result.stderr.startswith(("error: ", "Usage: "))


def test_a_long_value_is_shortened() -> None:
    error = KindError("x" * 100_000, "a hint")
    assert len(error.message) < 1000
    assert str(error).endswith("(a hint)")


@pytest.mark.parametrize("names", [(7,), (None,), (["panda"],)])
def test_names_of_classes_are_texts(names: tuple[object, ...]) -> None:
    with pytest.raises(ClassNameError, match="expected texts"):
        ClassInfo(id="n1", names=names)  # type: ignore[arg-type]


@pytest.mark.parametrize("names", [(), ("",), (" ", "panda")])
def test_a_class_is_called_something(names: tuple[str, ...]) -> None:
    with pytest.raises(ClassNameError, match="class 'n1' has no name"):
        ClassInfo(id="n1", names=names)
