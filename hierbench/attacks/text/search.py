"""The search on one prompt: rank the places by how much they matter, then take the edit that moves the text most."""

from __future__ import annotations

from dataclasses import dataclass

from hierbench.attacks.text.encoder import LEAST_GAIN, PromptEncoder
from hierbench.attacks.text.prompts import Prompt, Site, replaced
from hierbench.attacks.text.rules import LevelRules
from hierbench.attacks.text.settings import Span
from hierbench.attacks.text.sources import CandidateSource


@dataclass(frozen=True)
class AttackedPrompt:
    """What became of one prompt.

    Attributes:
        node: the node's index within its level.
        clean, text: the prompt before and after.
        old, new: what was replaced by what; both empty where nothing was.
        score: how far the text moved, by the source's measure; 0 where it did not.
        candidates: allowed edits that were tried.
    """

    node: int
    clean: str
    text: str
    old: str
    new: str
    score: float
    candidates: int

    @property
    def changed(self) -> bool:
        """Whether the prompt is another one."""
        return self.text != self.clean


def attack_prompt(
    prompt: Prompt, *, source: CandidateSource, rules: LevelRules, encoder: PromptEncoder, span: Span
) -> AttackedPrompt:
    """Return the prompt with the one edit that moves its feature furthest among the edits tried.

    Sites are tried in the order of their importance, until ``source.breadth`` of them have offered an allowed edit
    that moves the text; ties go to the site, then to the edit, that comes first. The unchanged prompt stays, with
    score 0, where none does. METHODS.md 3.
    """
    sites = source.sites(prompt, span)
    best = AttackedPrompt(prompt.node, prompt.text, prompt.text, "", "", 0.0, 0)
    tried = opened = 0
    for site in _by_importance(prompt, sites, source, encoder):
        edits = allowed_edits(prompt, site, source, rules)
        if not edits:
            continue
        tried += len(edits)
        scores = encoder.shifts(prompt.text, list(edits.values()), source.measure)
        score, new = max(zip(scores, edits, strict=True), key=lambda pair: pair[0])
        if score > max(best.score, LEAST_GAIN):
            old = prompt.text[site.start : site.stop]
            best = AttackedPrompt(prompt.node, prompt.text, edits[new], old, new, score, 0)
        opened += score > LEAST_GAIN
        if source.breadth and opened == source.breadth:
            break
    return AttackedPrompt(best.node, best.clean, best.text, best.old, best.new, best.score, tried)


def allowed_edits(prompt: Prompt, site: Site, source: CandidateSource, rules: LevelRules) -> dict[str, str]:
    """Return the edits of a site that the rules allow: replacement to text, in order, each text once."""
    found: dict[str, str] = {}
    for new in source.edits(prompt, site):
        text = replaced(prompt.text, site, new, agree=source.agree)
        if rules.refusal(prompt, site, new, text) is None and text not in found.values():
            found[new] = text
    return found


def _by_importance(
    prompt: Prompt, sites: tuple[Site, ...], source: CandidateSource, encoder: PromptEncoder
) -> list[Site]:
    """Return the sites, the one first whose probe moves the text most; nothing is encoded where the order is moot."""
    if len(sites) < 2 or not source.breadth:
        return list(sites)
    probes = [replaced(prompt.text, site, site.probe) for site in sites]
    scores = encoder.shifts(prompt.text, probes, source.measure)
    order = sorted(range(len(sites)), key=lambda place: -scores[place])
    return [sites[place] for place in order]
