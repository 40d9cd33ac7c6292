"""Other libraries' attacks by their names, and ours by another engine."""

from __future__ import annotations

import subprocess
import sys
from fractions import Fraction

import pytest
from attack_toys import TREE, conv_net, ids_of, images_of

from hierbench.attacks.catalogue import ATTACKS
from hierbench.attacks.named.external import TORCHATTACKS, by_engine
from hierbench.attacks.threat import ThreatModel
from hierbench.errors import HierbenchError, InputError

NET = conv_net(TREE.width)
IMAGES = images_of(24)
LABELS = NET(IMAGES)[:, :8].argmax(dim=1)


def arguments(depth: int, eps: Fraction = Fraction(8, 255)) -> dict[str, object]:
    return {
        "forward": NET, "images": IMAGES, "labels": LABELS, "sample_ids": ids_of(24), "layout": TREE,
        "threat": ThreatModel("linf", eps), "depth": depth, "scoring": "rollup", "batch_size": 16, "seed": 0,
        "dataset": "toy", "clean_logits": None, "device": None, "progress": None,
    }  # fmt: skip


def test_the_names_are_the_attacks_that_fit() -> None:
    from hierbench.attacks.external.torchattacks_catalogue import fitting_names

    assert sorted(TORCHATTACKS) == sorted(fitting_names())
    assert {f"torchattacks:{name}" for name in TORCHATTACKS} <= set(ATTACKS.names())


def test_naming_them_imports_no_library() -> None:
    code = (
        "import sys; from hierbench.attacks.catalogue import ATTACKS; s = ATTACKS.get('torchattacks:PGD'); "
        "assert s.components(s.settings({'steps': '5'}), nodes=(2, 4), depths=(2,), scoring='rollup'); "
        "assert not {'torch', 'torchattacks', 'pyautoattack'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_one_of_torchattacks_runs_under_its_name() -> None:
    spec = ATTACKS.get("torchattacks:PGD")
    result = spec.runner(NET, spec.settings({"steps": "12"}))(arguments(depth=2))
    assert result.attack == "torchattacks:PGD"
    assert result.engine.startswith("torchattacks ")
    assert result.settings["steps"] == 12
    assert result.verdict.sum() > 0
    with pytest.raises(HierbenchError, match="another library's loop"):
        spec.plan(depth=2, layout=TREE, scoring="rollup")


@pytest.mark.parametrize(
    ("name", "depth", "components"),
    [
        ("apgd-ce", 2, ("apgd-ce",)),
        ("apgd", 3, ("apgd-ce", "apgd-t")),
        ("apgd", 1, ("apgd-ce",)),
        ("apgd-t", 1, ("apgd-ce",)),
        ("superclass_autoattack", 3, ("apgd-ce", "apgd-t", "fab-t", "square")),
    ],
)
def test_the_authors_code_runs_what_the_record_says(name: str, depth: int, components: tuple[str, ...]) -> None:
    spec = by_engine(ATTACKS.get(name), "pyautoattack")
    quick = {"steps": 4, "queries": 10, "targets": 2}
    settings = spec.settings({k: v for k, v in quick.items() if k in {p.name for p in spec.parameters}})
    said = spec.components(settings, nodes=TREE.node_counts, depths=(depth,), scoring="rollup")
    result = spec.runner(NET, settings)(arguments(depth))
    assert said == components == result.components
    assert bool(spec.substitutions(settings, nodes=TREE.node_counts, depths=(depth,), scoring="rollup")) == bool(
        result.substitutions
    )
    assert result.settings["steps"] == 4


def test_our_own_engine_is_the_attack_itself_and_others_are_refused() -> None:
    spec = ATTACKS.get("apgd-ce")
    assert by_engine(spec, "hierbench") is spec
    with pytest.raises(InputError, match="--engine: 'foolbox' is none of"):
        by_engine(spec, "foolbox")
    with pytest.raises(InputError, match="it has no leaf_pgd; it runs apgd-ce"):
        by_engine(ATTACKS.get("leaf_pgd"), "pyautoattack")
