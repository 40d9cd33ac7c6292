from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest

from hierbench.datasets.catalogue import get_spec
from hierbench.errors import InputError
from hierbench.evaluation.protocol import PROTOCOLS, choose_protocol, load_protocol_file
from hierbench.evaluation.request import Request, choose_hierarchy, make_plan, spell_eps
from hierbench.paths import data_dir

DIGITS = data_dir() / "leaderboard" / "protocols" / "digits-v1.toml"


def plan(**said: object):  # type: ignore[no-untyped-def]
    request = Request(**said)  # type: ignore[arg-type]
    return make_plan(request, choose_hierarchy(request))


def test_every_shipped_protocol_names_what_exists() -> None:
    for name, protocol in PROTOCOLS.items():
        assert name == protocol.name
        for entry in protocol.datasets:
            spec = get_spec(entry.name)
            for attack in protocol.attacks.names:
                made = plan(protocol=name, dataset=entry.name, attack=attack)
                assert made.deviations == (), f"{name} on {entry.name} with {attack} deviates from itself"
            assert made.split in [*spec.splits, "heldout"]
            assert made.eps == Fraction(entry.default_eps)


def test_which_protocol_is_meant() -> None:
    assert choose_protocol(None, None).name == "digits-v1"
    assert choose_protocol(None, "digits").name == "digits-v1"
    assert choose_protocol(None, "cifar100").name == "tiny-v1"
    assert choose_protocol("tiny-v1", "digits").name == "tiny-v1"
    assert choose_protocol(None, "imagenet").name == "tiny-v1", "a protocol of the literature must be asked for"
    assert choose_protocol("fare-v1", "imagenet").name == "fare-v1"
    with pytest.raises(InputError, match="did you mean 'tiny-v1'"):
        choose_protocol("tiny", None)


def test_what_a_submission_must_bring_is_no_part_of_the_protocols_hash(tmp_path: Path) -> None:
    text, path = DIGITS.read_text(encoding="utf-8"), tmp_path / "digits-v1.toml"
    path.write_text(text.replace('required = ["leaf_pgd", ', "required = ["), encoding="utf-8")
    given = PROTOCOLS.get("digits-v1")
    fewer = load_protocol_file(path)
    assert (len(given.attacks.required), len(fewer.attacks.required)) == (3, 2)
    assert fewer.content_hash == given.content_hash
    path.write_text(text.replace("steps = 20", "steps = 21"), encoding="utf-8")
    assert load_protocol_file(path).content_hash != given.content_hash


def test_a_search_may_be_finer_than_the_protocol_says_and_not_coarser(monkeypatch: pytest.MonkeyPatch) -> None:
    assert plan(dataset="cifar100", search_precision="bf16", protocol="fare-v1").deviations
    coarse = replace(
        PROTOCOLS.get("tiny-v1"), attacks=replace(PROTOCOLS.get("tiny-v1").attacks, search_precision="tf32")
    )
    monkeypatch.setattr("hierbench.evaluation.request.choose_protocol", lambda *_: coarse)
    asked = {given: plan(dataset="cifar100", search_precision=given) for given in (None, "fp32", "tf32", "bf16")}
    assert [made.search_precision for made in asked.values()] == ["tf32", "fp32", "tf32", "bf16"]
    assert [bool(made.deviations) for made in asked.values()] == [False, False, False, True]
    assert asked["bf16"].deviations == ("search_precision: tf32 -> bf16",)
    assert plan(dataset="cifar100", attack="text_synonyms").search_precision == "fp32", "no search on images"


def test_a_shorter_list_of_the_protocols_own_is_no_deviation() -> None:
    assert plan(dataset="cifar100", limit=300).deviations == ()
    assert plan(dataset="cifar100").deviations == ()
    assert plan(dataset="cifar100", limit=301).deviations == ("limit: all -> 301",)


def test_a_protocol_fixes_settings_by_the_attacks_name() -> None:
    attacks = PROTOCOLS.get("tiny224-eps1-v1").attacks
    assert attacks.fixed("leaf_pgd", {"steps", "alpha"}) == {"steps": 100, "alpha": "1/255"}
    assert attacks.fixed("leaf_pgd", {"steps"}) == {"steps": 100}
    assert attacks.fixed("apgd", {"steps"}) == {}, "another attack's steps are not the same thing"
    assert attacks.fixed("cw_linf", {"steps"}) == {}


def test_no_flags_are_the_defaults_of_the_design() -> None:
    made = plan()
    assert (made.dataset, made.scoring, made.depths) == ("digits", "rollup", (1, 2, 3))
    assert (made.settings["steps"], made.settings["restarts"], made.settings["alpha"]) == (20, 1, "auto")
    assert (made.batch_size, made.severity_samples, made.limit) == (128, 100, None)
    assert made.deviations == ()


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"eps": "3/255"}, "eps: one of"),
        ({"limit": 10}, "limit: all -> 10"),
        ({"seed": 3}, "seed: 0 -> 3"),
        ({"batch_size": 64}, "batch_size: 128 -> 64"),
        ({"severity_samples": 5}, "severity_samples: 100 -> 5"),
        ({"norm": "l2", "eps": "1/2"}, "norm: linf -> l2"),
        ({"depths": (1,)}, "depths: 1, 2, 3 -> 1"),
        ({"tree": "parity"}, "tree: strokes -> parity"),
        ({"split": "train"}, "split: test -> train"),
        ({"template": "{}"}, "template: "),
        ({"settings": {"steps": "50"}}, "steps: 20 -> 50"),
        ({"settings": {"pooling": "logsumexp"}}, "pooling: max -> logsumexp"),
        ({"dataset": "cifar100", "protocol": "digits-v1"}, "dataset: one of digits -> cifar100"),
    ],
)
def test_a_flag_that_changes_a_fixed_field_marks_the_record(said: dict[str, object], words: str) -> None:
    assert any(words in deviation for deviation in plan(**said).deviations)


@pytest.mark.parametrize(
    "said",
    [{"eps": "8/255"}, {"eps": 16 / 255}, {"scoring": "direct"}, {"attack": "leaf_pgd"}, {"settings": {"steps": 20}}],
)
def test_a_flag_within_the_protocol_does_not(said: dict[str, object]) -> None:
    made = plan(**said)
    assert made.deviations == ()


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"eps": "4"}, "did you mean 4/255"),
        ({"eps": "-1/255"}, "--eps"),
        ({"norm": "l3"}, "--norm"),
        ({"scoring": "rolup"}, "--scoring"),
        ({"depths": (4,)}, "--depth: 4 does not exist"),
        ({"depths": (0,)}, "--depth: 0 does not exist"),
        ({"limit": 0}, "--limit"),
        ({"seed": -1}, "--seed"),
        ({"batch_size": 0}, "--batch-size"),
        ({"attack": "superclas_pgd"}, "did you mean 'superclass_pgd'"),
        ({"dataset": "cifar1000"}, "cifar100"),
        ({"tree": "stroke"}, "did you mean 'strokes'"),
        ({"split": "trian"}, "--split"),
        ({"settings": {"stepz": 1}}, "did you mean 'steps'"),
        ({"settings": {"steps": "many"}}, "steps is 'many'"),
        ({"protocol": "digit-v1"}, "did you mean 'digits-v1'"),
    ],
)
def test_what_cannot_be_asked_for_is_one_clear_line(said: dict[str, object], words: str) -> None:
    with pytest.raises(InputError) as caught:
        plan(**said)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('name = "digits-v1"', 'name = "other-v1"', "name: 'other-v1' is not the file's name"),
        ("version = 1", "version = 2", "version"),
        ("seed = 0", "seed = true", "seed: must be a whole number"),
        ("seed = 0", "seed = -1", "seed: must not be negative"),
        ("seed = 0", "sead = 0", "sead: unknown key"),
        ("seed = 0", "", "seed: missing"),
        ('norm = "linf"', 'norm = "l1"', "attack.norm"),
        ('norm = "linf"', 'norm = "linf"\nsearch_precision = "fp8"', "attack.search_precision: 'fp8' is none of"),
        ('default = "superclass_pgd"', 'default = "none"', "attack.default"),
        ('headline = "multilevel_apgd"', 'headline = "none"', "attack.headline"),
        ('"superclass_pgd", "multilevel_apgd"]', '"superclass_pgd"]', "attack.required: must be some of attack.names"),
        ('required = ["leaf_pgd"', 'required = ["fab"', "attack.required: must be some of attack.names"),
        ('[attack.parameters."*_pgd"]', "[attack.parameters]", "attack.parameters.steps: must be a table"),
        ('[attack.parameters."*_pgd"]', "[attack.parameters.fab]", "attack.parameters.fab: is none of attack.names"),
        ('default_eps = "32/255"', 'default_eps = "5/255"', "dataset[0].default_eps"),
        ('eps = "32/255"', 'eps = "16"', "train.eps: 16 is more than 1"),
        ('scorings = ["rollup", "direct"]', 'scorings = ["rollup", 1]', "scorings: must be a list of strings"),
        ('scorings = ["rollup", "direct"]', "scorings = []", "scorings"),
        ('split = "test"', 'split = "test"\nlimits = [0]', "dataset[0].limits: must be a list of whole numbers"),
        ('split = "test"', 'split = "test"\nlimits = 5', "dataset[0].limits: must be a list"),
        ('split = "test"', 'split = "test"\nwithout = ["x"]', "dataset[0].without: must be a string"),
        ('split = "test"', 'split = "test"\nwithout = "near"', "dataset[0].without: unknown list of left-out samples"),
        ("[train]", "[train", "not valid TOML"),
    ],
)
def test_a_malformed_protocol_is_refused_by_key(tmp_path: Path, old: str, new: str, words: str) -> None:
    text = DIGITS.read_text(encoding="utf-8")
    assert old in text
    path = tmp_path / "digits-v1.toml"
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(InputError) as caught:
        load_protocol_file(path)
    assert words in str(caught.value)
    assert "digits-v1.toml" in str(caught.value)


def test_the_hash_is_of_what_decides_and_not_of_words(tmp_path: Path) -> None:
    text = DIGITS.read_text(encoding="utf-8")
    path = tmp_path / "digits-v1.toml"
    hashes = []
    for change in (
        ("", ""),
        ('title = "Digits"', 'title = "Ciphers"'),
        ("# The built-in", "# A"),
        ("steps = 20", "steps = 21"),
    ):
        path.write_text(text.replace(*change, 1), encoding="utf-8")
        hashes.append(load_protocol_file(path).content_hash)
    assert hashes[0] == hashes[1] == hashes[2] != hashes[3]


@pytest.mark.parametrize("eps", ["1/255", "254/255", "1", "0", "1/3", "1/2"])
def test_an_eps_is_spelt_exactly(eps: str) -> None:
    assert Fraction(spell_eps(Fraction(eps))) == Fraction(eps)


def test_protocols_and_records_need_no_torch() -> None:
    code = "import sys, hierbench.evaluation.protocol, hierbench.evaluation.records; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_photograph_without_a_protocol_of_its_own_is_no_digit() -> None:
    assert choose_protocol(None, "nips2017").name == "tiny-v1"
    assert choose_protocol(None, "food101").name == "tiny-v1"
    assert choose_protocol(None, "digits").name == "digits-v1"
    assert choose_protocol("digits-v1", "food101").name == "digits-v1"
