from __future__ import annotations

import json
from importlib.resources import files

import pytest

from kind_core.classes import ClassInfo, read_class, resolve_class, resolve_classes
from kind_core.errors import ClassNameError

CLASSES = (
    ClassInfo(id="n02509815", names=("lesser panda", "red panda", "panda", "bear cat")),
    ClassInfo(id="n02510455", names=("giant panda", "panda", "panda bear", "coon bear")),
    ClassInfo(id="n07749582", names=("lemon",)),
    ClassInfo(id="n04120489", names=("running shoe",)),
    ClassInfo(id="n04146614", names=("school bus",)),
    ClassInfo(id="n02114367", names=("timber wolf", "grey wolf")),
    ClassInfo(id="n04355933", names=("sunglass",)),
    ClassInfo(id="n04356056", names=("sunglasses", "dark glasses", "shades")),
    ClassInfo(id="n02012849", names=("crane",)),
    ClassInfo(id="n03126707", names=("crane",)),
    ClassInfo(id="n09193705", names=("alp",)),
    ClassInfo(id="no_tumor", names=("brain without tumour",)),
)


@pytest.mark.parametrize(
    ("query", "class_id"),
    [
        ("n02510455", "n02510455"),
        ("N02510455", "n02510455"),
        ("no_tumor", "no_tumor"),
        ("giant panda", "n02510455"),
        ("coon bear", "n02510455"),
        ("red panda", "n02509815"),
        ("Giant Panda", "n02510455"),
        ("GIANT_PANDA", "n02510455"),
        ("giant-panda", "n02510455"),
        ("  giant   panda ", "n02510455"),
        ("giant pandas", "n02510455"),
        ("lemons", "n07749582"),
        ("running shoes", "n04120489"),
        ("shoe", "n04120489"),
        ("school buses", "n04146614"),
        ("buses", "n04146614"),
        ("timber wolves", "n02114367"),
        ("wolf", "n02114367"),
        ("sunglass", "n04355933"),
        ("sunglasses", "n04356056"),
        ("shade", "n04356056"),
        ("alps", "n09193705"),
        ("n03126707", "n03126707"),
    ],
)
def test_a_class_is_found_by_id_name_synonym_case_plural_and_last_word(query: str, class_id: str) -> None:
    result = resolve_class(query, CLASSES)
    assert result.info.id == class_id
    assert CLASSES[result.index] is result.info
    assert result.note == ""


@pytest.mark.parametrize("query", ["panda", "Pandas"])
@pytest.mark.parametrize("order", [1, -1])
def test_panda_is_the_giant_one_where_both_are_and_it_says_so(query: str, order: int) -> None:
    result = resolve_class(query, CLASSES[::order])
    assert result.info.id == "n02510455"
    assert result.note == f"{query!r} is taken as 'giant panda', not 'lesser panda'"


@pytest.mark.parametrize("index", [0, 1])
def test_panda_is_the_only_one_there_is(index: int) -> None:
    result = resolve_class("panda", (CLASSES[index], CLASSES[2]))
    assert (result.index, result.note) == (0, "")


def test_panda_without_the_synonym_is_found_by_the_last_word() -> None:
    classes = (ClassInfo(id="a", names=("lesser panda",)), ClassInfo(id="b", names=("giant panda",)))
    assert resolve_class("panda", classes).info.id == "b"


def test_a_typo_gets_the_nearest_names_and_where_to_list_all() -> None:
    with pytest.raises(ClassNameError) as caught:
        resolve_class("gaint panda", CLASSES)
    assert caught.value.message.startswith("unknown class 'gaint panda', nearest: 'giant panda'")
    assert "kind-export classes" in caught.value.hint


def test_a_typo_of_one_word_of_a_name_gets_its_class() -> None:
    with pytest.raises(ClassNameError, match="nearest: 'lesser panda'"):
        resolve_class("lesserr", CLASSES[:1])


@pytest.mark.parametrize("query", ["qqqq", "", "_", "p"])
def test_something_else_entirely_is_unknown(query: str) -> None:
    with pytest.raises(ClassNameError, match=f"^unknown class {query!r}") as caught:
        resolve_class(query, CLASSES)
    assert "nearest" not in caught.value.message


def test_an_ambiguous_name_lists_the_candidates_with_their_ids() -> None:
    with pytest.raises(ClassNameError) as caught:
        resolve_class("cranes", CLASSES)
    assert caught.value.message == "class 'cranes' fits several: 'crane' (n02012849), 'crane' (n03126707)"
    assert "id" in caught.value.hint


def test_several_are_resolved_in_the_order_asked() -> None:
    assert [r.index for r in resolve_classes(["lemon", "red panda"], CLASSES)] == [2, 0]


def test_naming_a_class_twice_is_an_error() -> None:
    with pytest.raises(ClassNameError, match="'n02510455' and 'giant panda' both name 'giant panda'"):
        resolve_classes(["giant panda", "lemon", "n02510455"], CLASSES)


@pytest.mark.parametrize(
    "class_id", ["", "a/b", "..", ".hidden", "-a", "a b", "e\u0301", "a\u200db", "a\x00", "\ud800"]
)
def test_an_id_that_is_no_file_name_is_refused(class_id: str) -> None:
    with pytest.raises(ClassNameError, match="not a plain file name"):
        ClassInfo(id=class_id, names=("x",))


@pytest.mark.parametrize("class_id", ["é", "猫", "кот", "قطة", "हिन्दी", "😀", "a_b-c.d", "CON"])
def test_an_id_of_any_alphabet_is_taken(class_id: str) -> None:
    assert resolve_class(class_id, [ClassInfo(id=class_id, names=("x",))]).index == 0


def test_an_id_that_no_file_name_holds_is_refused_with_its_length() -> None:
    with pytest.raises(ClassNameError, match="has 246 bytes, expected 240 at most"):
        ClassInfo(id="猫" * 82, names=("x",))


def _named(*names: str) -> list[ClassInfo]:
    return [ClassInfo(id=f"c{place}", names=tuple(name.split(", "))) for place, name in enumerate(names)]


@pytest.mark.parametrize(
    "names",
    [("A", "a"), ("cat-1", "cat_1"), ("panda", "giant panda"), ("C++", "C#"), ("cat", "cat, tiger"), ("shoe", "shoes"),
     ("Straße", "strasse"), ("é", "e"), ("crane", "crane, machine")],
)  # fmt: skip
def test_what_is_typed_to_the_letter_is_found_however_like_the_others_are(names: tuple[str, str]) -> None:
    classes = _named(*names)
    for order in (classes, classes[::-1]):
        assert [resolve_class(name, order).info.full_name for name in names] == list(names)


def test_an_id_goes_before_a_name() -> None:
    classes = [ClassInfo(id="b", names=("a",)), ClassInfo(id="a", names=("b",))]
    assert [resolve_class(query, classes).index for query in ("a", "b")] == [1, 0]


@pytest.mark.parametrize(
    ("query", "name"),
    [
        ("cafe\u0301", "café"),
        ("CAFÉ", "café"),
        ("\uff43\uff41\uff54", "cat"),
        ("STRASSE", "Straße"),
        ("犬", "犬"),
        ("ΟΔΟΣ", "οδος"),
    ],
)
def test_letters_are_the_same_however_they_are_written(query: str, name: str) -> None:
    classes = _named("other", name)
    assert resolve_class(query, classes).index == 1


def test_a_name_with_commas_is_one_class_also_where_a_command_line_took_it_apart() -> None:
    classes = _named("tench, Tinca tinca", "goldfish", "Smith, John, Jr")
    whole = [found.index for found in resolve_classes(["tench, Tinca tinca", "goldfish"], classes)]
    parted = [
        found.index for found in resolve_classes(["goldfish", "Smith", "John", "Jr", "tench", "Tinca tinca"], classes)
    ]
    assert (whole, parted) == ([0, 1], [1, 2, 0])
    with pytest.raises(ClassNameError, match="'Tinca tinca' and 'tench' both name 'tench'"):
        resolve_classes(["tench", "Tinca tinca"], classes, is_list=False)


def test_a_list_that_is_one_class_or_two_is_not_guessed() -> None:
    with pytest.raises(ClassNameError, match="'tench, Tinca tinca' may be one class or 2"):
        resolve_classes(["tench", "Tinca tinca"], _named("tench, Tinca tinca", "tench"))


def test_every_imagenet_class_is_found_by_its_name_or_is_ambiguous_by_nature() -> None:
    rows = json.loads((files("kind_core") / "data" / "imagenet_1k.json").read_text(encoding="utf-8"))
    classes = [ClassInfo(id=class_id, names=(name,)) for class_id, name in rows]
    ambiguous = set()
    for index, info in enumerate(classes):
        try:
            assert resolve_class(info.name, classes).index == index
        except ClassNameError:
            ambiguous.add(info.name)
    assert ambiguous == {"crane", "maillot"}


def test_a_typo_of_a_shared_word_names_every_class_that_has_it() -> None:
    classes = [ClassInfo(id="a", names=("giant panda",)), ClassInfo(id="b", names=("lesser panda",))]
    with pytest.raises(ClassNameError) as caught:
        resolve_class("pand", classes)
    assert "'giant panda'" in caught.value.message
    assert "'lesser panda'" in caught.value.message


def test_a_class_of_a_files_metadata_has_a_list_of_names() -> None:
    assert read_class({"id": "koala", "names": ["koala", "bear"]}) == ClassInfo(id="koala", names=("koala", "bear"))
    for data in (
        None,
        [],
        {"id": "koala", "names": "koala"},
        {"id": "koala"},
        {"names": ["koala"]},
        {"id": 3, "names": ["x"]},
    ):
        with pytest.raises(ClassNameError):
            read_class(data)
