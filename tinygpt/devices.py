"""Devices that a user names."""

from __future__ import annotations

from tensor.errors import DeviceError
from tensor.memory.devices import array_module
from tinygpt.errors import InputError


def check_device(name: str) -> None:
    """Raise InputError where there is no such device."""
    try:
        array_module(name)
    except DeviceError as error:
        raise InputError(str(error)) from None
