from __future__ import annotations

import unicodedata
from itertools import permutations

import pytest

from kind_core.class_ids import (
    match_classes,
    name_class_file,
    parse_class_name,
    parse_class_names,
    require_distinct,
)
from kind_core.classes import ClassInfo, resolve_class
from kind_core.errors import ClassNameError

_RESERVED = {"con", "prn", "aux", "nul", *(f"{port}{digit}" for port in ("com", "lpt") for digit in range(10))}
# Sets of names whose ids would be one, or no file names at all.
_SETS = [
    ("猫", "犬"), ("кот", "собака", "кот!"), ("قطة", "كلب"), ("😀", "😺", "😀😀"), ("chat", "chât", "Chat"),
    ("ñandú", "ñandu"), ("C++", "C#", "C"), ("A", "a"), ("cat 1", "cat_1", "cat-1"), ("50%", "50"), ("Mr. T", "Mr. T."),
    ("red+blue", "red&blue"), ("CON", "con", "con_"), ("nul.txt", "aux"), ("com1", "COM¹"), ("...", "---", "___", "!"),
    ("a" * 250, "a" * 249 + "b"), ("日" * 80, "日" * 79 + "本"), ("Straße", "STRASSE", "strasse"), ("\uff2b", "K"),
    ("①", "1"), ("❤️", "❤"), ("a\u200db", "a_b"), ("C++", "C#", "C-f1deb75f"), ("한국어", "हिन्दी", "தமிழ்"),
    ("İ", "i", "\u0131", "I"), ("a/b", "a:b"), ("x\n", "x"), ("a?", "a*", "a|", 'a"'), ("trailing.", "trailing"),
    ("-rf", "rf"), ("\ue000", "\ue001"), ("\udce9", "\x00"),
]  # fmt: skip


@pytest.mark.parametrize("names", _SETS, ids=repr)
def test_every_set_of_names_gets_ids_that_every_file_system_keeps_apart(names: tuple[str, ...]) -> None:
    infos = parse_class_names(names)
    ids = [info.id for info in infos]
    for form in ("NFC", "NFD", "NFKC"):
        assert len({unicodedata.normalize(form, one).casefold() for one in ids}) == len(names), ids
    for one in ids:
        assert unicodedata.is_normalized("NFC", one)
        assert len(one.encode()) <= 110
        assert not one.startswith((".", "-", "_"))
        assert not one.endswith((".", " "))
        assert one.split(".")[0].lower() not in _RESERVED
        assert not set(one) & set('<>:"/\\|?*\0\n ')
    require_distinct(infos)


@pytest.mark.parametrize("names", _SETS, ids=repr)
def test_an_id_depends_on_no_order(names: tuple[str, ...]) -> None:
    expected = dict(zip(names, parse_class_names(names), strict=True))
    for order in permutations(names):
        assert dict(zip(order, parse_class_names(order), strict=True)) == expected


@pytest.mark.parametrize("names", [one for one in _SETS if "___" not in one and "\0" not in one[-1]], ids=repr)
def test_what_is_typed_as_the_folder_is_called_finds_it(names: tuple[str, ...]) -> None:
    infos = parse_class_names(names)
    typed = [name.strip() for name in names]
    if len(set(typed)) == len(typed):
        assert [resolve_class(name, infos).index for name in typed] == list(range(len(names)))


@pytest.mark.parametrize(
    ("name", "class_id"),
    [
        ("golden retriever", "golden_retriever"), ("n02510455_giant_panda", "n02510455"), ("C++", "C"),
        ("a__b", "a_b"), ("tench, Tinca tinca", "tench_Tinca_tinca"), ("Mr. T.", "Mr._T"), ("0", "0"),
        ("x-1.5", "x-1.5"), ("___", "class"),
        ("a" * 100, "a" * 100),
    ],
)  # fmt: skip
def test_an_id_of_a_name_in_ascii_is_what_it_always_was(name: str, class_id: str) -> None:
    assert parse_class_name(name).id == class_id
    assert parse_class_names([name, "another"])[0].id == class_id


def test_more_classes_change_no_id_but_of_names_that_look_the_same() -> None:
    few = parse_class_names(["cat", "猫", "A", "50"])
    assert parse_class_names(["cat", "猫", "A", "50", "dog", "犬", "a", "50%"])[:4] == few


@pytest.mark.parametrize(
    ("names", "named"),
    [
        (("cat", "cat"), "'cat' and 'cat' are one class"),
        (("café", "cafe\u0301"), r"'caf\\xe9' and 'cafe\\u0301' are one class"),
        (("n02510455_panda", "n02510455 giant panda"), "'n02510455_panda' and 'n02510455 giant panda' are one class"),
        (("n02510455", "n02510455_panda"), "'n02510455' and 'n02510455_panda' are one class"),
    ],
)
def test_two_names_of_one_class_are_refused_by_both(names: tuple[str, str], named: str) -> None:
    with pytest.raises(ClassNameError, match=named):
        parse_class_names(names)


def test_classes_are_matched_by_id_alone() -> None:
    held = parse_class_names(["Panda", "n02510455_giant_panda", "lemon"])
    wanted = (held[2], ClassInfo(id="n02510455", names=("another name",)))
    assert match_classes(wanted, held) == [2, 1]
    with pytest.raises(ClassNameError, match=r"no class has the id 'panda' \(panda\)"):
        match_classes(parse_class_names(["panda"]), held)


def test_one_id_of_two_names_is_no_match() -> None:
    with pytest.raises(ClassNameError, match=r"'C\+\+' and 'C#' both have the id 'C'"):
        match_classes(parse_class_names(["C++"]), parse_class_names(["C#"]))
    assert match_classes(parse_class_names(["giant_panda"]), parse_class_names(["giant panda"])) == [0]


def test_ids_that_differ_in_case_are_refused_by_both() -> None:
    with pytest.raises(ClassNameError, match="'A' and 'a' are one file name"):
        require_distinct([ClassInfo(id=one, names=(one,)) for one in ("b", "A", "a")])


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("Giant Panda", "giant-panda"), ("猫", "猫"), ("Ærø!", "ærø"), ("C++", "c"), (".hidden", "hidden"),
        ("con", "con_"), ("mug [blue]", "mug-blue"), ("../x", "x"),
    ],
)  # fmt: skip
def test_a_file_is_named_after_its_class(name: str, stem: str) -> None:
    assert name_class_file(ClassInfo(id="c1", names=(name,)), ()) == stem


@pytest.mark.parametrize("names", _SETS, ids=repr)
def test_files_of_different_classes_have_different_names_that_can_be_seen(names: tuple[str, ...]) -> None:
    infos = parse_class_names(names)
    stems = [name_class_file(info, infos) for info in infos]
    assert len({unicodedata.normalize("NFD", stem).casefold() for stem in stems}) == len(names)
    for stem in stems:
        assert 0 < len(stem.encode()) <= 110
        assert not stem.startswith((".", "-"))
