"""The table of names, and what is looked up and summed by it."""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest

from carspotter.names import LEVELS, CarName, group_classes, split_name, stanford_names, sum_groups

NAMES = tuple(stanford_names().values())

BODIES = {
    "Cargo Van",
    "Club Cab",
    "Convertible",
    "Coupe",
    "Crew Cab",
    "Extended Cab",
    "Hatchback",
    "Minivan",
    "Passenger Van",
    "Quad Cab",
    "Regular Cab",
    "SUV",
    "Sedan",
    "SuperCab",
    "Van",
    "Wagon",
}

# Whose parts, put together again, are not the label: the body stands twice, or in the middle.
REORDERED = {
    "Bentley Continental Supersports Conv. Convertible 2012",
    "Infiniti G Coupe IPL 2012",
}


def test_the_table_has_the_official_counts() -> None:
    assert len(NAMES) == 196
    assert len({name.make for name in NAMES}) == 49
    assert [name.label for name in NAMES] == list(stanford_names())


def test_the_table_is_the_devkit(stanford: Path) -> None:
    from scipy.io import loadmat

    official = loadmat(stanford / "devkit" / "cars_meta.mat", squeeze_me=True)["class_names"]
    assert list(stanford_names()) == [str(name) for name in official]


def test_seven_names_come_in_two_years() -> None:
    years = defaultdict(set)
    for name in NAMES:
        years[name.make, name.model, name.body].add(name.year)
    assert {" ".join(map(str, name)) for name, of in years.items() if len(of) > 1} == {
        "Audi S4 Sedan",
        "Bentley Continental GT Coupe",
        "Dodge Caliber Wagon",
        "Dodge Durango SUV",
        "Ford F-150 Regular Cab",
        "Honda Odyssey Minivan",
        "Volkswagen Golf Hatchback",
    }
    assert max(map(len, years.values())) == 2


@pytest.mark.parametrize(
    ("label", "parts"),
    [
        ("AM General Hummer SUV 2000", ("AM General", "Hummer", "SUV", 2000)),
        ("Aston Martin V8 Vantage Coupe 2012", ("Aston Martin", "V8 Vantage", "Coupe", 2012)),
        ("Land Rover Range Rover SUV 2012", ("Land Rover", "Range Rover", "SUV", 2012)),
        ("Ram C/V Cargo Van Minivan 2012", ("Ram", "C/V Cargo Van", "Minivan", 2012)),
        ("smart fortwo Convertible 2012", ("smart", "fortwo", "Convertible", 2012)),
        ("Infiniti G Coupe IPL 2012", ("Infiniti", "G IPL", "Coupe", 2012)),
        ("HUMMER H2 SUT Crew Cab 2009", ("HUMMER", "H2 SUT", "Crew Cab", 2009)),
        ("Dodge Ram Pickup 3500 Quad Cab 2009", ("Dodge", "Ram Pickup 3500", "Quad Cab", 2009)),
        (
            "Rolls-Royce Phantom Drophead Coupe Convertible 2012",
            ("Rolls-Royce", "Phantom Drophead Coupe", "Convertible", 2012),
        ),
        ("Acura TL Type-S 2008", ("Acura", "TL Type-S", None, 2008)),
        ("Jaguar XK XKR 2012", ("Jaguar", "XK XKR", None, 2012)),
    ],
)
def test_names_that_no_rule_splits(label: str, parts: tuple[str, str, str | None, int]) -> None:
    assert split_name(label) == CarName(label, *parts)


@pytest.mark.parametrize("name", NAMES, ids=lambda name: name.label)
def test_the_parts_make_up_the_label(name: CarName) -> None:
    assert name.make
    assert name.model
    assert name.body is None or name.body in BODIES
    together = " ".join(filter(None, (name.make, name.model, name.body, str(name.year))))
    if name.label in REORDERED:
        assert set(together.split()) <= set(name.label.split())
    else:
        assert together == name.label
    # A body that is left inside the model would be a split too far to the right.
    assert name.body is not None or name.model.split()[-1] not in BODIES


@pytest.mark.parametrize(
    "folder",
    [
        "Ram C-V Cargo Van Minivan 2012",
        "Ram C_V Cargo Van Minivan 2012",
        "Ram CV Cargo Van Minivan 2012",
        "Ram_C-V_Cargo_Van_Minivan_2012",
    ],
)
def test_a_name_bent_to_a_folder_is_found(folder: str) -> None:
    assert split_name(folder) is stanford_names()["Ram C/V Cargo Van Minivan 2012"]


def test_every_name_survives_as_a_folder() -> None:
    for label, name in stanford_names().items():
        for stand_in in ("-", "_", ""):
            assert split_name(label.replace("/", stand_in).replace(" ", "_")) == name


@pytest.mark.parametrize(
    "label",
    ["My Kit Car 1987", "BMW", "Audi S4 Sedan 2011", "Ram C-V", "Škoda Fabia", "", "日産"],
)
def test_an_unknown_label_is_kept_whole(label: str) -> None:
    name = split_name(label)
    assert name == CarName(label, None, None, None, None)
    assert [name.at(level) for level in LEVELS] == [label] * 3


def test_a_name_at_each_level() -> None:
    name = split_name("BMW M3 Coupe 2012")
    assert [name.at(level) for level in LEVELS] == ["BMW M3 Coupe 2012", "BMW M3", "BMW"]


def test_a_name_without_a_model_is_kept_whole_there() -> None:
    name = CarName("Tatra, an old one", make="Tatra")
    assert [name.at(level) for level in LEVELS] == [name.label, name.label, "Tatra"]


@pytest.mark.parametrize(("level", "count"), [("exact", 196), ("make", 49)])
def test_groups_of_the_table(level: str, count: int) -> None:
    groups, of_class = group_classes(NAMES, level)
    assert len(groups) == count
    assert [groups[group] for group in of_class] == [name.at(level) for name in NAMES]


def test_groups_stand_in_order_of_first_appearance() -> None:
    labels = ["smart fortwo Convertible 2012", "Audi S4 Sedan 2012", "A car", "Audi S4 Sedan 2007"]
    groups, of_class = group_classes([split_name(label) for label in labels], "model")
    assert groups == ("smart fortwo", "Audi S4", "A car")
    assert of_class.tolist() == [0, 1, 2, 1]


def test_sums_of_groups() -> None:
    probabilities = np.array([[0.1, 0.2, 0.3, 0.4], [1.0, 0.0, 0.0, 0.0]])
    sums = sum_groups(probabilities, np.array([0, 1, 0, 2]))
    np.testing.assert_allclose(sums, [[0.4, 0.2, 0.4], [1.0, 0.0, 0.0]])
    assert probabilities.tolist() == [[0.1, 0.2, 0.3, 0.4], [1.0, 0.0, 0.0, 0.0]]


def test_sums_over_makes_agree_with_a_plain_count() -> None:
    probabilities = np.random.default_rng(0).dirichlet(np.ones(len(NAMES)), 5)
    groups, of_class = group_classes(NAMES, "make")
    for row, sums in zip(probabilities, sum_groups(probabilities, of_class), strict=True):
        expected: Counter[str] = Counter()
        for name, probability in zip(NAMES, row, strict=True):
            expected[str(name.make)] += probability
        np.testing.assert_allclose(sums, [expected[make] for make in groups])
