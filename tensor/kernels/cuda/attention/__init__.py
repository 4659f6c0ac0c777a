"""Attention on the GPU: by cuDNN, and by hand in versions from the plainest to the fastest.

By hand, equal inputs give equal bits. So these kernels run where equal bits are asked for, and
where cuDNN refuses.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tensor.kernels import kernel_for
from tensor.kernels.cuda.attention import by_hand
from tensor.mode import MODE

BY_HAND: dict[str, tuple[Callable[..., Any], Callable[..., str | None]]] = {
    "multi_head_attention": (by_hand.attention_by_hand, by_hand.supports_packed),
    "attention": (by_hand.attention_of_heads_by_hand, by_hand.supports),
}


def _if_asked_for(supports: Callable[..., str | None]) -> Callable[..., str | None]:
    def asked(*arrays: Any, **options: Any) -> str | None:
        if not MODE.get().deterministic:
            return "equal bits are not asked for"
        return supports(*arrays, **options)

    return asked


# kernels are asked in the order of registration
for _name, (_function, _supports) in BY_HAND.items():
    kernel_for(
        _name,
        device="cuda",
        supports=_if_asked_for(_supports),
        reason="cuda kernel, since equal bits are asked for",
    )(_function)

from tensor.kernels.cuda.attention import by_cudnn  # noqa: E402

for _name, (_function, _supports) in BY_HAND.items():
    kernel_for(_name, device="cuda", supports=_supports)(_function)

__all__ = ["by_cudnn", "by_hand"]
