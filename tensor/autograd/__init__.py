"""Gradients: how a result gets its node, the backward pass, recomputation."""

from typing import TYPE_CHECKING, Any

from tensor.names import unknown

if not TYPE_CHECKING:  # a type checker would take any name for one of this module

    def __getattr__(name: str) -> Any:
        raise unknown(__name__, name)
