"""Memory under tensors: layouts (shape, strides, offset), storage, devices."""
