"""Parameters have roles, and optimisers group by them as they did by words in names: groups decide
the bits of trainings, and which optimiser states load.
"""

from __future__ import annotations

import re
from typing import Any

import pytest

from tensor import Tensor
from tensor.nn.packing import group_of
from tensor.optim import AdamW, Muon
from tinygpt import GPT, GPTConfig

TINY = {"vocabulary": 7, "context": 4, "width": 4, "layers": 2, "heads": 2}


def groups_by_name(model: GPT, muon: bool, decay_embeddings: bool) -> dict[str, str]:
    """As before roles: by the words in all names of a parameter."""
    words: dict[int, set[str]] = {}
    for name, parameter in model._named(""):
        words.setdefault(id(parameter), set()).update(re.split(r"[._]", name))
    found = {}
    for name, parameter in model.named_parameters():
        group, known = group_of(parameter), words[id(parameter)]
        if group == "decayed" and not decay_embeddings and "embedding" in known:
            group = "not decayed"
        elif (
            group == "decayed"
            and muon
            and parameter.ndim == 2
            and not known & {"embedding", "head"}
        ):
            group = "matrices"
        found[name] = group
    return found


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("positions", ["learned", "sinusoidal"])
@pytest.mark.parametrize("decay_embeddings", [True, False])
@pytest.mark.parametrize("make", [AdamW, Muon])
def test_groups_are_those_of_the_names(
    make: Any, decay_embeddings: bool, positions: Any, tied: bool
) -> None:
    model = GPT(GPTConfig(**TINY, tied=tied, positions=positions))  # type: ignore[arg-type]
    expected = groups_by_name(model, make is Muon, decay_embeddings)
    optimizer = make(model, decay_embeddings=decay_embeddings)
    found = {slot.name: flat.group for flat in optimizer.flats for slot in flat.slots}
    assert found == expected
    assert isinstance(model.token_embedding.weight, Tensor)
    assert list(dict.fromkeys(expected.values())) == [flat.group for flat in optimizer.flats]


def test_roles_of_a_model() -> None:
    model = GPT(GPTConfig(**TINY, tied=False))  # type: ignore[arg-type]
    roles = {name: parameter.role for name, parameter in model.named_parameters()}
    assert roles["token_embedding.weight"] == roles["position_embedding"] == "table"
    assert roles["head.weight"] == "head"
    others = {name: role for name, role in roles.items() if "embedding" not in name}
    del others["head.weight"]
    for name, role in others.items():
        assert role == ("matrix" if name.endswith("weight") else "vector"), name
