from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from attack_toys import OURS, TREE

from hierbench.attacks.catalogue import ATTACKS
from hierbench.errors import InputError

HEIGHTS = np.where(np.eye(TREE.num_leaves, dtype=bool), 0, 1)


def test_listing_attacks_does_not_import_torch() -> None:
    code = (
        "import sys; from hierbench.attacks.catalogue import ATTACKS; "
        "assert len(ATTACKS) >= 3; assert [s.settings() for _, s in ATTACKS.items()]; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


@pytest.mark.parametrize("name", OURS)
@pytest.mark.parametrize("scoring", ["rollup", "direct"])
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_every_plan_is_named_as_the_record_says(name: str, scoring: str, depth: int) -> None:
    spec = ATTACKS.get(name)
    for given in ({}, {"targeted": True}, {"targeted": "yes", "path": "true"}):
        if given and name != "multilevel_pgd":
            continue
        if spec.leaf_only and depth < 3:
            with pytest.raises(InputError, match="leaves alone"):
                spec.plan(depth=depth, layout=TREE, scoring=scoring, settings=given, heights=HEIGHTS)
            continue
        plan = spec.plan(depth=depth, layout=TREE, scoring=scoring, settings=given, heights=HEIGHTS)
        said = spec.components(spec.settings(given), nodes=TREE.node_counts, depths=(depth,), scoring=scoring)
        assert tuple(dict.fromkeys(stage.component.partition("/d")[0] for stage in plan)) == said
        assert len({stage.component for stage in plan}) == len(plan)
        if name.endswith("_pgd"):
            assert all(stage.optimiser.steps == 20 and stage.restarts == 1 for stage in plan)


@pytest.mark.parametrize(
    ("name", "given", "components"),
    [
        ("leaf_pgd", {}, ("pgd-leaf-ce",)),
        ("superclass_pgd", {}, ("pgd-node-ce",)),
        ("multilevel_pgd", {}, ("pgd-levels-ce",)),
        ("multilevel_pgd", {"targeted": True}, ("pgd-node-t",)),
        ("multilevel_pgd", {"targeted": True, "path": True}, ("pgd-path-t",)),
        ("multilevel_pgd", {"path": True}, ("pgd-levels-ce",)),
    ],
)
def test_component_names_say_what_ran(name: str, given: dict[str, object], components: tuple[str, ...]) -> None:
    # They key the draws too: another name is another result.
    spec = ATTACKS.get(name)
    assert spec.components(spec.settings(given), nodes=(2, 3, 6), depths=(1, 2, 3), scoring="rollup") == components


def test_parts_that_are_undefined_at_a_depth_are_replaced_and_said() -> None:
    spec = ATTACKS.get("superclass_autoattack")
    aimed = {"nodes": (2, 3, 6), "depths": (1, 2, 3), "scoring": "rollup"}
    assert spec.components(spec.settings(), **aimed) == ("apgd-ce", "apgd-margin-t", "fab-t", "square", "apgd-t")
    assert spec.substitutions(spec.settings(), **aimed) == (
        "depth 1: apgd-t needs 4 nodes, there are 2; apgd-margin-t ran",
        "depth 2: apgd-t needs 4 nodes, there are 3; apgd-margin-t ran",
    )
    rand = spec.settings({"version": "rand"})
    assert spec.components(rand, **aimed) == ("apgd-ce", "apgd-margin", "apgd-dlr")
    assert spec.substitutions(rand, **aimed) == ("depth 1: apgd-dlr needs 3 nodes, there are 2; apgd-margin ran",)


def test_a_pooled_attack_searches_all_depths_from_the_leaves() -> None:
    spec = ATTACKS.get("multilevel_apgd")
    assert spec.pools("rollup") and not spec.pools("direct")
    assert spec.default_depths(3, "rollup") == (3,)
    assert spec.default_depths(3, "direct") == (1, 2, 3)
    plan = spec.plan(depth=3, layout=TREE, scoring="rollup")
    depths = [stage.depth for stage in plan]
    assert depths == sorted(depths[:3]) + sorted(depths[3:])  # coarse to fine, twice
    assert {stage.component for stage in plan} >= {"apgd-ce/d1", "apgd-ce/d2", "apgd-ce/d3"}
    assert all(stage.depth is None for stage in spec.plan(depth=2, layout=TREE, scoring="direct"))


def test_default_depths() -> None:
    assert ATTACKS.get("leaf_pgd").default_depths(4) == (4,)
    assert ATTACKS.get("superclass_pgd").default_depths(4) == (1, 2, 3, 4)
    assert ATTACKS.get("multilevel_pgd").default_depths(4) == (1, 2, 3, 4)


def test_settings_are_read_from_text_and_reach_the_plan() -> None:
    spec = ATTACKS.get("multilevel_pgd")
    given = {"steps": "7", "alpha": "eps", "restarts": 2, "targeted": "true", "targets": "3", "pooling": "logsumexp"}
    settings = spec.settings(given)
    assert settings["steps"] == 7
    assert settings["targeted"] is True
    assert settings["start"] == "uniform"
    (stage,) = spec.plan(depth=2, layout=TREE, scoring="rollup", settings=given)
    assert (stage.optimiser.steps, stage.optimiser.alpha, stage.restarts) == (7, "eps", 2)
    assert (stage.objective.targets, stage.objective.pooling, stage.objective.path) == (3, "logsumexp", False)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"step": 3}, "superclass_pgd has no setting 'step': did you mean 'steps'?"),
        ({"zzz": 3}, "superclass_pgd has no setting 'zzz': it has steps, alpha"),
        ({"steps": "many"}, "superclass_pgd: steps is 'many', and should be a whole number of at least 1"),
        ({"steps": 0}, "should be a whole number of at least 1"),
        ({"steps": 2.5}, "should be a whole number"),
        ({"steps": True}, "should be a whole number"),
        ({"steps": "nan"}, "should be a whole number"),
        ({"pooling": "mean"}, "pooling is 'mean', and should be max or logsumexp"),
        ({"start": "random"}, "should be uniform or clean"),
        ({"alpha": " "}, "should be text"),
    ],
)
def test_wrong_settings_are_one_line(given: dict[str, object], said: str) -> None:
    with pytest.raises(InputError) as caught:
        ATTACKS.get("superclass_pgd").settings(given)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
