"""The places that are offered for an edit: half from the shortlists, half from elsewhere, none on both sides."""

import random
from types import SimpleNamespace

from self_pruner.agent.decisions.kinds.edit import places_of
from self_pruner.agent.search.legal_calls import Place
from self_pruner.memory.profile import Profile


def test_half_of_the_places_are_from_the_shortlists_and_half_from_elsewhere():
    space = SimpleNamespace(n_layers=20, units=lambda part: 4 if part == "attention" else 12)
    cut = tuple(Place(layer, "mlp", 3) for layer in range(8))
    grow = tuple(Place(layer, "attention", 1) for layer in range(8))
    moment = SimpleNamespace(
        budget=SimpleNamespace(space=space), here=SimpleNamespace(cut=cut, grow=grow), rng=random.Random(0)
    )
    found = places_of(moment, Profile((2,) * 20, (6,) * 20))
    for places, listed in zip(found, (cut, grow), strict=True):
        names = {(place.layer, place.part) for place in places}
        assert len(names) == 8
        assert len(names & {(place.layer, place.part) for place in listed}) == 4
    assert not {(one.layer, one.part) for one in found[0]} & {(one.layer, one.part) for one in found[1]}
