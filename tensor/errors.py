"""What goes wrong, by name. Each error is also the builtin a user would catch without knowing this file."""


class ViewError(ValueError, RuntimeError):
    """The strides cannot express the wanted shape, so only a copy could (ValueError as in NumPy, RuntimeError as in PyTorch)."""


class ShapeError(ValueError):
    """Shapes, axes or indices that do not fit together."""


class DTypeError(TypeError):
    """A dtype that the operation is not defined for."""


class GraphError(RuntimeError):
    """The graph cannot be walked: nothing recorded, already freed, or no upstream gradient."""


class MutationError(RuntimeError):
    """Memory that a graph still needs was written, or was about to be."""


class DeviceError(RuntimeError):
    """A device that is not there, or two devices in one operation."""


class GradientError(AssertionError):
    """A gradient is wrong: of the wrong shape, not finite, or not what central differences say."""
