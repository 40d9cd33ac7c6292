"""Every attack of torchattacks that fits: its own images where they lie in the ball, and nothing of them outside."""

from __future__ import annotations

import random
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest
import torch
from attack_toys import TREE, conv_net, ids_of, images_of
from torch import Tensor, nn

from hierbench.attacks.external.global_rng import batch_seed, preserved_rng, seed_everything
from hierbench.attacks.external.outcome import ExternalResult
from hierbench.attacks.external.torchattacks import run_torchattacks
from hierbench.attacks.external.torchattacks_catalogue import fitting_names, foreign_attack, unfit_reasons
from hierbench.attacks.threat import BALL_TOLERANCE, ThreatModel
from hierbench.errors import InputError

torchattacks = pytest.importorskip("torchattacks")

NET = conv_net(TREE.width, seed=3)
IMAGES = images_of(24, seed=1)
LABELS = NET(IMAGES)[:, :8].argmax(dim=1)
LABELS[:3] = (LABELS[:3] + 1) % 8  # three are wrong on the clean image
EPS = {"linf": Fraction(8, 255), "l2": Fraction(1, 4)}
QUICK = {"SPSA": {"nb_sample": 16}, "Square": {"steps": 60}, "EADEN": {"steps": 10}}
NOISE = ("GN",)
"""Search nothing."""
WEAK = ("SPSA", "TIFGSM", "TPGD", "Square", "CW")
"""Search, and find little in so few steps on a net of random weights."""
WIDE = {"AutoAttack": {"linf": Fraction(64, 255), "l2": Fraction(3)}}
"""Its last part makes 5,000 queries for each sample that is left: let none be."""
EVERY = [(name, norm) for norm in ("linf", "l2") for name in fitting_names(norm)]


def attack(
    name: str,
    forward: object = NET,
    images: Tensor = IMAGES,
    labels: Tensor = LABELS,
    *,
    norm: str = "linf",
    eps: Fraction | None = None,
    depth: int = 3,
    scoring: str = "rollup",
    batch_size: int = 16,
    seed: int = 0,
    **others: object,
) -> ExternalResult:
    return run_torchattacks(
        name,
        forward,
        images,
        labels,
        ids_of(len(images)),
        layout=TREE,
        threat=ThreatModel(norm, EPS[norm] if eps is None else eps),
        depth=depth,
        scoring=scoring,
        batch_size=batch_size,
        seed=seed,
        dataset="toy",
        **others,
    )


class Leaves(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = NET

    def forward(self, pixels: Tensor) -> Tensor:
        return self.net(pixels)[:, :8]


def global_state() -> tuple[object, ...]:
    return torch.get_rng_state().tolist(), np.random.get_state()[1].tolist(), random.getstate()


@pytest.mark.parametrize(("name", "norm"), EVERY)
def test_every_attack_that_fits_runs_and_is_judged_by_us(name: str, norm: str) -> None:
    before = global_state()
    eps = WIDE.get(name, EPS)[norm]
    result = attack(f"torchattacks:{name}", norm=norm, eps=eps, settings=QUICK.get(name))
    assert global_state() == before
    assert result.attack == f"torchattacks:{name}"
    assert result.components == (result.attack,)
    assert (result.linf if norm == "linf" else result.l2).max() <= float(eps) + BALL_TOLERANCE
    seen = NET(result.adversarial)[:, :8].argmax(dim=1) != LABELS
    assert np.array_equal(result.verdict, seen.numpy())
    assert result.verdict[:3].all()
    assert not result.searched[:3].any()
    assert torch.equal(result.adversarial[:3], IMAGES[:3])
    newly = int(result.verdict[3:].sum())
    if name not in NOISE:
        assert newly >= (2 if name in WEAK else 11)
        assert result.steps_used[3:].min() >= 1
    assert result.forwards >= 24 + 24
    again = attack(name, norm=norm, eps=eps, settings=QUICK.get(name))
    assert torch.equal(again.adversarial, result.adversarial)


def test_the_list_is_the_library_s() -> None:
    fitting = set(fitting_names())
    assert fitting | set(unfit_reasons()) == set(torchattacks.__all__)
    assert {"PGD", "FGSM", "APGD", "AutoAttack", "PGDL2", "DeepFool", "EADEN", "GN"} <= fitting
    assert set(unfit_reasons()) == {
        "VANILA", "JSMA", "EADL1", "SparseFool", "OnePixel", "Pixle", "MultiAttack", "LGV",
    }  # fmt: skip
    assert "PGDL2" not in fitting_names("linf")
    assert "PGD" not in fitting_names("l2")
    assert {"APGD", "FAB", "Square"} <= set(fitting_names("linf")) & set(fitting_names("l2"))


@pytest.mark.parametrize("name", ["PGD", "MIFGSM", "FAB", "Square"])
def test_it_is_the_library_s_own_result(name: str) -> None:
    made = {"PGD": {"steps": 7, "alpha": 0.002}, "MIFGSM": {}, "FAB": {"steps": 5, "n_classes": 8}, "Square": {}}[name]
    rows = slice(3, 19)
    drawn = batch_seed(0, dataset="toy", attack=name, sample_ids=ids_of(24)[rows])
    seeds = {"seed": drawn} if name in ("FAB", "Square") else {}
    quick = {"n_queries": 20} if name == "Square" else {}
    with preserved_rng():
        seed_everything(drawn)
        maker = getattr(torchattacks, name)(Leaves(), eps=8 / 255, **made, **seeds, **quick)
        reference = maker(IMAGES[rows], LABELS[rows])
    given = {key: (str(value) if key == "alpha" else value) for key, value in made.items() if key != "n_classes"}
    result = attack(name, settings={**given, **({"steps": 20} if quick else {})})
    assert torch.equal(result.adversarial[rows], reference.detach())


def test_length_and_steps_are_ours_to_set() -> None:
    threat = ThreatModel("linf", Fraction(16, 255))
    made = foreign_attack("PGD").arguments({}, threat=threat, candidates=8, seed=0)
    assert made == {"eps": 16 / 255, "alpha": pytest.approx(4 / 255), "steps": 10, "random_start": True}
    made = foreign_attack("PGD").arguments(
        {"steps": "40", "alpha": "1/255", "random_start": "no"}, threat=threat, candidates=8, seed=0
    )
    assert made == {"eps": 16 / 255, "alpha": 1 / 255, "steps": 40, "random_start": False}
    made = foreign_attack("PIFGSM").arguments({"steps": 3}, threat=threat, candidates=8, seed=0)
    assert (made["max_epsilon"], made["num_iter_set"]) == (16 / 255, 3)
    made = foreign_attack("APGDT").arguments({"restarts": 2}, threat=ThreatModel("l2", 1), candidates=5, seed=3)
    assert (made["norm"], made["n_classes"], made["n_restarts"], made["seed"]) == ("L2", 5, 2, 3)
    made = foreign_attack("CW").arguments({"c": "0.5"}, threat=ThreatModel("l2", 1), candidates=5, seed=3)
    assert made["c"] == 0.5
    made = foreign_attack("FFGSM").arguments({}, threat=threat, candidates=8, seed=0)
    assert made["alpha"] == pytest.approx(20 / 255)  # its own 1.25 eps, not ours


def test_costs_are_counted_to_the_image() -> None:
    result = attack("PGD", eps=Fraction(1, 255_000), settings={"steps": 5})
    # Clean pass and verification, 16 + 8 rows each, and five steps for the 21 that were right.
    assert result.forwards == 48 + 5 * 21
    assert result.backwards == result.gradients == 5 * 21
    assert result.padding == 0
    assert (result.steps_used[3:] == 5).all()
    assert result.settings["batch_size"] == 16
    nothing = attack("PGD", eps=Fraction(0))
    assert torch.equal(nothing.adversarial, IMAGES)
    assert nothing.backwards == 0


def test_draws_belong_to_the_run_s_seed() -> None:
    first, other = attack("PGD", settings={"steps": 1}), attack("PGD", settings={"steps": 1}, seed=1)
    assert not torch.equal(first.adversarial, other.adversarial)
    torch.rand(5)
    assert torch.equal(first.adversarial, attack("PGD", settings={"steps": 1}).adversarial)


@pytest.mark.parametrize("name", ["DeepFool", "CW", "GN"])
def test_outside_the_ball_nothing_counts(name: str) -> None:
    eps = Fraction(1, 1000)
    settings = {"DeepFool": {}, "CW": {"c": 50, "lr": 0.05}, "GN": {"std": 0.5}}[name]
    result = attack(name, norm="l2", eps=eps, settings=settings)
    with preserved_rng():
        seed_everything(0)
        raw = getattr(torchattacks, name)(Leaves(), **settings)(IMAGES[3:], LABELS[3:])
    fooled = NET(raw)[:, :8].argmax(dim=1) != LABELS[3:]
    assert fooled.sum() >= 8  # what the library itself would count
    assert result.outside >= 8
    assert not result.verdict[3:].any()
    assert result.max_l2 <= float(eps) + BALL_TOLERANCE
    assert any("outside" in note for note in result.notes)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("PDG", "did you mean 'PGD'"),
        ("torchattacks:pgd", "did you mean 'PGD'"),
        ("Nonsense", "has no attack 'Nonsense'"),
        ("VANILA", "gives the images back"),
        ("Pixle", "searches L0"),
        ("EADL1", "searches L1"),
        ("MultiAttack", "needs attacks"),
        ("LGV", "needs trainloader"),
        ("PGDL2", "does not search a linf ball, but l2"),
    ],
)
def test_what_does_not_fit_says_why_in_one_line(name: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        attack(name)
    assert "\n" not in str(caught.value)


def test_the_other_norm_s_attack_is_offered() -> None:
    with pytest.raises(InputError, match="torchattacks:PGDL2 does"):
        attack("PGD", norm="l2")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"stepz": 3}, "did you mean 'steps'"),
        ({"eps": 0.3}, "eps is settled by the threat model"),
        ({"steps": 0}, "at least 1"),
        ({"steps": "many"}, "a whole number"),
        ({"alpha": "eps/0"}, "divides by zero"),
    ],
)
def test_wrong_settings_are_one_line(settings: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        attack("PGD", settings=settings)


def test_an_attack_that_cannot_run_on_these_images_says_so() -> None:
    grey = conv_net(TREE.width, channels=1, seed=3)
    images = images_of(8, (1, 8, 8), seed=1)
    labels = grey(images)[:, :8].argmax(dim=1)
    before = global_state()
    with pytest.raises(InputError, match="TIFGSM cannot run on 1x8x8 images and 8 candidates: RuntimeError") as caught:
        attack("TIFGSM", grey, images, labels)
    assert "\n" not in str(caught.value)
    assert global_state() == before
    assert attack("PGD", grey, images, labels).verdict.any()


@pytest.mark.parametrize(
    ("name", "depth", "settings"), [("APGDT", 1, {}), ("AutoAttack", 1, {}), ("APGD", 1, {"loss": "dlr"})]
)
def test_losses_that_need_more_candidates_are_refused(name: str, depth: int, settings: dict[str, object]) -> None:
    with pytest.raises(InputError, match=r"needs \d candidates and there are 2"):
        attack(name, depth=depth, settings=settings)
    assert attack(name, depth=2, settings=settings, eps=Fraction(64, 255)).verdict.any()


def test_direct_scoring_reads_the_nodes_own_logits() -> None:
    labels = torch.tensor([(TREE.node_of_leaf(1) == node).nonzero()[0, 0] for node in NET(IMAGES)[:, 8:10].argmax(1)])
    result = attack("PGD", labels=labels, depth=1, scoring="direct")
    assert result.searched.all()
    assert np.array_equal(result.verdict, result.broken["direct"][:, 0])
    assert result.verdict.sum() >= 10


def test_the_libraries_are_imported_only_when_asked_for() -> None:
    code = (
        "import sys, hierbench.attacks.external.torchattacks, hierbench.attacks.external.pyautoattack;"
        "print([m for m in ('torchattacks', 'pyautoattack', 'robustbench', 'requests') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
