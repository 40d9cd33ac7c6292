"""Facts that the class tables and trees of the fine-grained sets must hold: label order, makers, years, families."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hierbench.hierarchy.catalogue import load_hierarchy
from hierbench.hierarchy.class_table import LeafClass, read_class_table
from hierbench.hierarchy.tree import Hierarchy

CLASSES = Path(__file__).parents[2] / "hierbench" / "datasets" / "classes"
SIZES = {"stanford_cars": 196, "fgvc_aircraft": 100, "flowers102": 102, "cub200": 200, "inaturalist": 100}

# Label numbers as the Hub copies and the authors' lists give them, spread over each list.
LABELS = {
    "stanford_cars": {
        0: "AM_General_Hummer_SUV_2000",
        13: "Audi_TTS_Coupe_2012",
        48: "Buick_Verano_Sedan_2012",
        78: "Chrysler_300_SRT-8_2010",
        104: "Fisker_Karma_Sedan_2012",
        138: "Hyundai_Elantra_Touring_Hatchback_2012",
        169: "Nissan_Juke_Hatchback_2012",
        185: "Toyota_Sequoia_SUV_2012",
        195: "smart_fortwo_Convertible_2012",
    },
    "fgvc_aircraft": {
        0: "707-320",
        20: "777-300",
        41: "Boeing_717",
        72: "F-16A_B",
        73: "F_A-18",
        86: "MD-80",
        99: "Yak-42",
    },
    "flowers102": {
        0: "pink_primrose",
        15: "globe-flower",
        20: "fire_lily",
        44: "bolero_deep_blue",
        57: "geranium",
        77: "lotus",
        92: "ball_moss",
        101: "blackberry_lily",
    },
    "inaturalist": {0: "Acer_rubrum", 99: "Xanthoria_parietina"},
}
# Leaves of each manufacturer that has more than one, by the data set's own lists.
MANUFACTURERS = {
    "Boeing": 22,
    "Airbus": 13,
    "ATR": 2,
    "Beechcraft": 2,
    "British Aerospace": 4,
    "Canadair": 4,
    "Cessna": 4,
    "Dassault": 2,
    "de Havilland": 5,
    "Douglas": 4,
    "Embraer": 7,
    "Fokker": 3,
    "Gulfstream": 2,
    "Lockheed": 2,
    "McDonnell Douglas": 7,
    "Saab": 2,
    "Tupolev": 2,
}
# Spelt with a vowel, spoken with a consonant.
CONSONANT_SOUND = ("Eu",)
# The last word of a CUB class name that is also a node of the tree.
BIRD_KINDS = ("Gull", "Tern", "Vireo", "Wren", "Woodpecker", "Kingfisher", "Cormorant", "Grebe", "Albatross", "Shrike")


def table(dataset: str) -> tuple[LeafClass, ...]:
    return read_class_table(CLASSES / f"{dataset}.tsv")


def above(tree: Hierarchy, depth: int) -> list[tuple[str, str]]:
    """Return each leaf's id with the noun of the node above it at a depth, in label order."""
    level = tree.level(depth)
    nodes = zip(tree.leaves, level.leaf_to_node.tolist(), strict=True)
    return [(leaf.id, level.nouns[node]) for leaf, node in nodes]


@pytest.mark.parametrize("dataset", SIZES)
def test_a_class_table_has_its_size_and_plain_ids(dataset: str) -> None:
    rows = table(dataset)
    assert len(rows) == SIZES[dataset]
    assert all(re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*", row.id) for row in rows)
    wordnet = [row.wordnet for row in rows if row.wordnet]
    assert len(set(wordnet)) == len(wordnet)


@pytest.mark.parametrize("dataset", LABELS)
def test_a_class_table_is_in_label_order(dataset: str) -> None:
    rows = table(dataset)
    assert {label: rows[label].id for label in LABELS[dataset]} == LABELS[dataset]


def test_cub_classes_are_numbered_from_one() -> None:
    assert [int(row.id[:3]) for row in table("cub200")] == list(range(1, 201))


def test_inaturalist_classes_are_latin_names_in_order() -> None:
    ids = [row.id for row in table("inaturalist")]
    assert ids == sorted(ids)
    assert all(re.fullmatch(r"[A-Z][a-z]+_[a-z]+", class_id) for class_id in ids)


@pytest.mark.parametrize("dataset", SIZES)
def test_nouns_have_the_right_article(dataset: str) -> None:
    for row in table(dataset):
        assert not row.name.startswith(("a ", "an "))
        article, _, rest = row.noun.partition(" ")
        if article not in ("a", "an"):
            assert row.noun == row.name
            continue
        # Letters of a name spoken one by one: "an ATR", "an F-16", but "a BAe", "a DC-10".
        spelt = re.match(r"[AEFHILMNORSX](?=[-/\d]|[A-Z])", rest) is not None and not rest.startswith(("AM ", "McD"))
        vowel = rest[0].lower() in "aeiou" and not rest.startswith(CONSONANT_SOUND)
        expected = "an" if vowel or (spelt and dataset == "fgvc_aircraft") else "a"
        assert article == expected, row.noun


def test_cars_are_named_by_their_year() -> None:
    for row in table("stanford_cars"):
        assert row.name.startswith(f"{row.id[-4:]} ")


def test_cars_stand_under_their_year() -> None:
    for class_id, noun in above(load_hierarchy("stanford_cars", "year"), 1):
        years = [int(text) for text in re.findall(r"\d{4}", noun)]
        first, last = (1990, 1999) if noun.endswith("the 1990s") else (years[0], years[-1])
        assert first <= int(class_id[-4:]) <= last, (class_id, noun)


def test_cars_stand_under_their_make() -> None:
    tree = load_hierarchy("stanford_cars", "make")
    for row, (class_id, noun) in zip(table("stanford_cars"), above(tree, 3), strict=True):
        make = noun.removeprefix("an ").removeprefix("a ")
        assert row.name.removeprefix(f"{class_id[-4:]} ").startswith(make) or noun == row.noun


def test_cars_stand_under_the_body_style_of_their_name() -> None:
    styles = {
        "Convertible": "a convertible",
        "Sedan": "a sedan",
        "SUV": "an SUV",
        "Minivan": "a van",
        "Van": "a van",
        "Hatchback": "a hatchback",
        "Wagon": "a station wagon",
        "Cab": "a pickup truck",
        "SuperCab": "a pickup truck",
        "Coupe": "a coupe",
    }
    checked = 0
    for class_id, noun in above(load_hierarchy("stanford_cars", "body"), 2):
        # "Drophead_Coupe_Convertible" and "E-Series_Wagon_Van": the last word before the year is the style.
        style = class_id.split("_")[-2]
        if style in styles:
            assert noun == styles[style], class_id
            checked += 1
    # Fifteen names end in a trim: "TL Type-S", "500 Abarth", "G Coupe IPL".
    assert checked == 196 - 15


def test_aircraft_follow_the_official_manufacturers_and_families() -> None:
    tree = load_hierarchy("fgvc_aircraft", "official")
    # Gulfstream's one family is the manufacturer itself, so its two variants count where the official list has one.
    assert [len(level) for level in tree.levels] == [30, 70 + 1, 100]
    level = tree.level(1)
    found = {
        name.removesuffix(" aircraft"): count
        for name, count in zip(level.names, level.leaf_counts.tolist(), strict=True)
        if count > 1
    }
    assert found == MANUFACTURERS
    families = dict(above(tree, 2))
    assert {families[name] for name in ("A318", "A319", "A320", "A321")} == {"an airliner of the Airbus A320 family"}
    assert families["CRJ-700"] == families["CRJ-900"] != families["CRJ-200"]
    assert families["MD-80"] == families["MD-87"] != families["MD-90"]


def test_birds_stand_under_their_kind() -> None:
    tree = load_hierarchy("cub200")
    lines = [dict(above(tree, depth)) for depth in tree.depths]
    for row in table("cub200"):
        kind = row.id.split("_")[-1]
        if kind in BIRD_KINDS:
            article = "an" if kind == "Albatross" else "a"
            assert f"{article} {kind.lower()}" in {line[row.id] for line in lines}, row.id


def test_flowers_in_doubt_have_no_family() -> None:
    level_two = dict(above(load_hierarchy("flowers102"), 2))
    nouns = {row.id: row.noun for row in table("flowers102")}
    for doubtful in ("pink_primrose", "bolero_deep_blue"):
        assert level_two[doubtful] == nouns[doubtful]
