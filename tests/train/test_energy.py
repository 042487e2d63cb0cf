"""The term of likeness to photos: what it measures, that a student learns by it, and where it is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from test_distill import save_teacher
from tiny_training import make_config, make_photos

from kind_core.checkpoint import read_config
from kind_core.errors import ClassNameError, ConfigError, DataError
from kind_train.class_guidance import scale_of_each
from kind_train.data.photo_set import PhotoSet
from kind_train.early import check_recipe
from kind_train.evaluate.run import evaluate
from kind_train.evaluate.small_classifier import SmallClassifier, save_classifier, train_classifier
from kind_train.evaluation import EvaluationRequest
from kind_train.run.distilling import DistillationLosses
from kind_train.run.processes import Processes
from kind_train.run.step import Stepper
from kind_train.run.terms.energy import ClassifierLevels, Lite0Levels, PhotoEnergy
from kind_train.run.trainer import Trainer
from kind_train.start.shape import pick_shape

pytestmark = pytest.mark.usefixtures("one_thread")
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_teacher(tmp_path_factory.mktemp("teacher") / "t")


def distil(teacher: Path, output: Path, *, resume: bool = False, **options: Any) -> Trainer:
    given = {"steps": (2, 1), "label_dropout": 0.0, "learning_rate": 1e-3, "batch_size": 16, "match_photos": 1.0}
    config = make_config(output, teacher=str(teacher), **given | options)
    return Trainer(config, make_photos(12), make_photos(12, seed=1), resume=resume)


def test_energy_is_least_for_pictures_drawn_as_the_photos_are() -> None:
    photos = make_photos(24)
    energy = PhotoEnergy(photos, CPU)
    labels = photos.labels
    pictures = photos.to_unit(torch.arange(len(labels)))
    other = make_photos(24, seed=5)
    alike = float(energy(other.to_unit(torch.arange(len(labels))), other.labels))
    swapped = float(energy(pictures, (labels + 1) % 3))
    blurred = float(energy(pictures.mean((2, 3), keepdim=True).expand_as(pictures), labels))
    # every picture of a class the same one: sharp, but not varied
    first = torch.stack([pictures[labels == label][0] for label in labels])
    same = float(energy(first + 1e-3 * torch.randn(first.shape), labels))
    assert alike < min(swapped, blurred, same) / 3
    assert alike < 0.1


def test_what_is_held_out_is_measured_as_training_measures(teacher: Path) -> None:
    """Over whole classes the mean of the photos' shares is the distance, but for the order of the sums."""
    photos = make_photos(8)
    energy = PhotoEnergy(photos, CPU)
    drawn = torch.randn(len(photos), 3, 8, 8, generator=torch.Generator().manual_seed(0)).clamp(-1, 1)
    known = photos.to_unit(torch.arange(len(photos)))
    shares = energy.between([drawn], known, photos.labels)
    # the photos of `energy` are these and their mirrors
    assert shares.shape == (len(photos),)
    assert float(shares.mean()) == pytest.approx(float(energy(drawn, photos.labels)), rel=0.15)
    alone = energy.between([drawn[:1]], known[:1], photos.labels[:1])
    assert alone.tolist() == [0.0]


def make_days_and_nights(num_photos: int, *, seed: int = 0) -> PhotoSet:
    """Photos in the order of their names: of each class the day, then as many of the night."""
    photos = make_photos(num_photos, seed=seed)
    images = photos.images.clone()
    images[num_photos // 2 :] //= 8
    return PhotoSet(images=images, labels=photos.labels, classes=photos.classes)


def test_of_many_photos_those_that_are_kept_are_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures are held beside the whole of a class, not beside the photos whose names come first."""
    monkeypatch.setattr("kind_train.run.terms.energy._MOST_PHOTOS", 24)
    photos, other = make_days_and_nights(96), make_days_and_nights(48, seed=5)
    energy, whole = PhotoEnergy(photos, CPU), other.to_unit(torch.arange(48))
    days = other.to_unit(torch.arange(24))
    assert float(energy(whole, other.labels)) < 0.5 * float(energy(days, other.labels[:24]))
    monkeypatch.setattr("kind_train.run.terms.energy._MOST_OTHERS", 12)
    guided = PhotoEnergy(photos, CPU, (2.0,) * len(photos.classes))  # away from all photos, not from those of the day
    every = torch.cat([whole, whole])
    labels = torch.cat([other.labels, other.labels])
    monkeypatch.setattr("kind_train.run.terms.energy._MOST_OTHERS", 10**6)
    expected = PhotoEnergy(photos, CPU, (2.0,) * len(photos.classes))
    assert float(guided(every, labels)) == pytest.approx(float(expected(every, labels)), abs=0.15)


def test_a_share_of_one_image_is_no_set(teacher: Path, tmp_path: Path) -> None:
    """Of a batch of two, two processes have a picture each."""
    trainer = distil(teacher, tmp_path / "run", batch_size=2)
    parts = (trainer.model, trainer.losses, trainer.optimizer, trainer.photos, trainer.config)
    with pytest.raises(ConfigError, match="each of 2 processes has one image: match_photos compares sets"):
        Stepper(*parts, Processes(count=2), CPU, is_sharded=False)


def test_guidance_keeps_away_from_the_photos_of_other_classes() -> None:
    photos, drawn = make_photos(24), make_photos(24, seed=5)
    own = drawn.to_unit(torch.arange(24))
    common = (own + own.mean(0)) / 2  # halfway to what all classes have in common

    def cost(scale: float, pictures: torch.Tensor) -> float:
        energy = PhotoEnergy(photos, CPU, (scale,) * 3)
        return float(energy(pictures, drawn.labels) - energy(own, drawn.labels))

    assert 0 < 1.5 * cost(1.0, common) < cost(2.0, common)
    assert 1.5 * cost(1.0, own.roll(1, 0)) < cost(2.0, own.roll(1, 0))


def test_a_class_may_have_guidance_of_its_own() -> None:
    photos, drawn = make_photos(24), make_photos(24, seed=5)
    pictures = drawn.to_unit(torch.arange(24))

    def cost(scales: tuple[float, ...], label: int) -> float:
        of = drawn.labels == label
        return float(PhotoEnergy(photos, CPU, scales)(pictures[of], drawn.labels[of]))

    plain, all_alike, one = (1.0,) * 3, (2.5,) * 3, (1.0, 2.5, 1.0)
    assert [cost(one, label) for label in range(3)] == [cost(plain, 0), cost(all_alike, 1), cost(plain, 2)]
    assert cost(one, 1) != cost(plain, 1)
    assert scale_of_each(("Class 1=2.5",), photos.classes, 1.0) == one


def test_a_class_whose_guidance_is_given_is_one_of_the_teachers(teacher: Path, tmp_path: Path) -> None:
    given = {"teacher": str(teacher), "steps": (2,), "match_photos": 1.0, "label_dropout": 0.0}
    config = make_config(tmp_path / "run", **given, class_guidance=("clas 1=2",))
    with pytest.raises(ClassNameError, match="unknown class 'clas 1'"):
        check_recipe(config, pick_shape(config))


def test_a_student_learns_by_photos_alone(teacher: Path, tmp_path: Path) -> None:
    own = ("class 1=1.5",)
    trainer = distil(
        teacher, tmp_path / "run", follow=0.0, images=960, ema_decay=0.9, save_every=10**6, class_guidance=own
    )
    assert trainer.stepper.losses.names == ("term of likeness to photos",)
    before = trainer.measure_held_out(trainer.averaged_model())
    assert trainer.run() < 0.5 * before
    training = read_config(tmp_path / "run/best").provenance.training
    assert "likeness to photos of weight 1 by EfficientNet-Lite0" in training
    assert "with a guidance scale of its own for class 1=1.5" in training


def test_it_is_a_second_term_of_its_weight(teacher: Path, tmp_path: Path) -> None:
    whole, half = (
        distil(teacher, tmp_path / str(weight), match_photos=weight).stepper.take(0, is_trial=True)
        for weight in (1.0, 0.5)
    )
    assert whole[1] == 2 * half[1] != 0
    assert whole[0] == half[0]


def make_lopsided(num_photos: int, *, seed: int = 0) -> PhotoSet:
    """Photos that are bright on their left, dark on their right."""
    photos = make_photos(num_photos, seed=seed)
    images = photos.images.clone()
    images[..., 4:] //= 8
    return PhotoSet(images=images, labels=photos.labels, classes=photos.classes)


@pytest.mark.parametrize("flip", [True, False])
def test_photos_that_a_run_does_not_mirror_are_not_matched_in_the_mirror(
    flip: bool, teacher: Path, tmp_path: Path
) -> None:
    config = {"flip": flip, "follow": 0.0, "images": 16}
    given = {"steps": (1,), "label_dropout": 0.0, "batch_size": 16, "match_photos": 1.0}
    options = make_config(tmp_path / "run", teacher=str(teacher), **given | config)
    losses = Trainer(options, make_lopsided(24), make_lopsided(24, seed=1)).losses
    assert isinstance(losses, DistillationLosses)
    energy = losses.energy
    assert energy is not None
    other = make_lopsided(24, seed=2)
    pictures = other.to_unit(torch.arange(24))
    as_they_are, mirrored = (float(energy(one, other.labels)) for one in (pictures, pictures.flip(-1)))
    if flip:
        assert mirrored == pytest.approx(as_they_are, abs=0.02)
    else:
        assert as_they_are < 0.1 * mirrored


def test_a_classifier_of_the_very_classes_looks_too(teacher: Path, tmp_path: Path) -> None:
    """What it sees counts as much as all that EfficientNet-Lite0 sees; the model names it, and it does not judge."""
    network, info = train_classifier(make_photos(24), make_photos(9, seed=4), images=640)
    save_classifier(tmp_path / "eye", network, info)
    eye, photos = ClassifierLevels(SmallClassifier(tmp_path / "eye").stages), make_photos(24)
    lite0, drawn = Lite0Levels(CPU), make_photos(24, seed=5).to_unit(torch.arange(24)) / 2
    alone = [float(PhotoEnergy(photos, CPU, look=[one])(drawn, photos.labels)) for one in (lite0, eye)]
    both = float(PhotoEnergy(photos, CPU, look=[lite0, eye])(drawn, photos.labels))
    assert both == pytest.approx(sum(alone) / 2, rel=1e-4)

    options = {"follow": 0.0, "images": 32, "match_classifier": str(tmp_path / "eye")}
    distil(teacher, tmp_path / "run", **options).run()
    sha256 = SmallClassifier(tmp_path / "eye").sha256
    training = read_config(tmp_path / "run/best").provenance.training
    assert training.endswith(f"by EfficientNet-Lite0 and classifier {sha256[:12]}")
    request = EvaluationRequest(
        data=tmp_path, val_data=tmp_path, checkpoint=tmp_path / "run/best", classifier=tmp_path / "eye"
    )
    with pytest.raises(ConfigError, match=f"classifier {sha256[:12]} taught this model, and so is no judge of it"):
        evaluate(request)


def test_a_classifier_of_another_size_or_none_is_refused(teacher: Path, tmp_path: Path) -> None:
    given = {"teacher": str(teacher), "steps": (2,), "match_photos": 1.0}
    config = make_config(tmp_path / "run", **given, match_classifier=str(tmp_path / "eye"))
    with pytest.raises(ConfigError, match=r"--match-classifier: there is no file .*eye"):
        check_recipe(config, pick_shape(config))
    photos = make_photos(9, size=16)
    save_classifier(tmp_path / "eye", *train_classifier(photos, photos, images=64))
    with pytest.raises(ConfigError, match="the pictures are 8 x 8, the classifier's are 16 x 16"):
        check_recipe(config, pick_shape(config))


def test_a_larger_picture_shows_a_classifier_more() -> None:
    """The same photos at another side: other levels, and what they are taken for, which says nothing of small ones."""
    pictures = make_photos(4).to_unit(torch.arange(4))
    small, large = (Lite0Levels(CPU, size)(pictures) for size in (64, 128))
    assert [one.shape for one in small] == [one.shape for one in large[:-1]]
    assert not torch.allclose(small[-1], large[-2], rtol=0.1)
    torch.testing.assert_close(large[-1].square().sum(1), torch.ones(4), rtol=0, atol=2e-3)


def test_a_run_that_goes_on_has_the_losses_of_an_uninterrupted_one(teacher: Path, tmp_path: Path) -> None:
    whole = distil(teacher, tmp_path / "whole", images=64)
    whole.run()
    distil(teacher, tmp_path / "parts", images=32).run()
    rest = distil(teacher, tmp_path / "parts", images=64, resume=True)
    rest.run()
    assert all(torch.equal(a, b) for a, b in zip(whole.model.parameters(), rest.model.parameters(), strict=True))


def test_a_class_of_one_photo_is_no_set() -> None:
    with pytest.raises(DataError, match="'class 0' has 1 photos to train on, expected 2 or more"):
        PhotoEnergy(make_photos(3), CPU)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"match_photos": -1.0}, "match_photos is -1.0, expected 0 or more"),
        ({"match_photos": 1.0}, "match_photos is 1.0, expected 0 without a teacher"),
        ({"follow": 0.0}, "follow is 0.0, expected 1 without a teacher"),
        ({"teacher": "run", "steps": (4,), "follow": 0.0}, "follow is 0.0, expected above 0 where match_photos is 0"),
        (
            {"teacher": "run", "steps": (4,), "follow": 0.0, "match_photos": 1.0, "perceptual": 0.1},
            "perceptual is 0.1, expected 0 where no teacher is followed",
        ),
        ({"match_size": 128}, "match_size is 128, expected 64 without a teacher"),
        (
            {"teacher": "run", "steps": (4,), "match_classifier": "c"},
            "match_classifier is 'c', expected none where match_photos is 0",
        ),
        (
            {"teacher": "run", "steps": (4,), "match_photos": 1.0, "match_size": 16},
            "match_size is 16, expected 32 to 224 pixels",
        ),
        (
            {"teacher": "run", "steps": (4,), "class_guidance": ("a=2",)},
            r"class_guidance is \('a=2',\), expected none where match_photos is 0",
        ),
        *(
            ({"teacher": "run", "steps": (4,), "match_photos": 1.0, "class_guidance": given}, message)
            for given, message in (
                (("a",), "class_guidance is 'a', expected NAME=SCALE, for example koala=2.5"),
                (("=2",), "class_guidance is '=2', expected NAME=SCALE"),
                (("a=inf",), "class_guidance is 'a=inf', expected NAME=SCALE"),
                (("a=2", "a=3"), "class_guidance names 'a' twice, expected one scale for a class"),
            )
        ),
        (
            {"teacher": "run", "steps": (4,), "match_photos": 1.0, "batch_size": 1},
            "match_photos is 1.0, expected 0 in batches of one",
        ),
    ],
)
def test_options_that_do_not_go_together_are_refused(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        make_config(tmp_path, **options)


def test_latents_are_refused(tmp_path: Path) -> None:
    teacher = save_teacher(tmp_path / "latents", in_channels=4)
    config = make_config(tmp_path, teacher=str(teacher), steps=(4,), match_photos=1.0)
    with pytest.raises(ConfigError, match=r"match_photos is 1, but .* is of latents: the term looks at pictures"):
        check_recipe(config, pick_shape(config))
