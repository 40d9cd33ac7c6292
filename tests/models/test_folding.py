"""A search's copy of a model: batch norms folded, the same answers, and the model itself left as it was."""

from __future__ import annotations

import torch

import hierbench
from hierbench.hierarchy.catalogue import load_hierarchy
from hierbench.models.binding import BoundModel, bind
from hierbench.models.folding import folded_copy

PIXELS = torch.rand(20, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def bound_digits() -> BoundModel:
    model = hierbench.load_model("tecoa.digits", device="cpu")
    return bind(model, load_hierarchy("digits"), template="a photo of {noun}.", direct=False)


def test_the_copy_answers_alike_and_the_model_stays_as_it_was() -> None:
    bound = bound_digits()
    before = {name: tensor.clone() for name, tensor in bound.state_dict().items()}
    plain = bound(PIXELS)
    quick = folded_copy(bound, PIXELS)
    assert quick is not bound
    torch.testing.assert_close(quick(PIXELS), plain, rtol=1e-4, atol=1e-4)
    assert torch.equal(bound(PIXELS), plain)
    assert all(torch.equal(tensor, before[name]) for name, tensor in bound.state_dict().items())


def test_the_copy_has_a_tower_of_its_own_and_shares_the_rest() -> None:
    bound = bound_digits()
    quick = folded_copy(bound, PIXELS)
    own = dict(quick.named_parameters())
    visual = {name for name, _ in bound.named_parameters() if ".visual." in name}
    assert visual
    for name, parameter in bound.named_parameters():
        assert (parameter is own[name]) == (name not in visual), name
    assert quick.points is bound.points


def test_a_tower_without_batch_norms_is_not_copied() -> None:
    bound = bound_digits()
    for module in bound.model.visual.modules():
        for name, child in list(module.named_children()):
            if isinstance(child, torch.nn.BatchNorm2d):
                setattr(module, name, torch.nn.Identity())
    assert folded_copy(bound, PIXELS) is bound
