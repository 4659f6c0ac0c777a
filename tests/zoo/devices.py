"""Bugs that only a GPU has: CuPy is not quite NumPy."""

from __future__ import annotations

from tests.zoo.bug import Bug

TESTS = "tests/tensor/memory/test_devices.py::test_bug_66_"

ZOO = [
    Bug(
        # a Python number travels to the GPU as an array of 64 bits, and promotes what it meets
        row=66,
        file="tensor/ops/inputs.py",
        old=(
            "            elif x is None or (self.elementwise and type(x) in REALS):\n"
            "                arrays.append(x)\n"
        ),
        new="            elif x is None or (self.elementwise and type(x) in REALS):\n"
        "                known = x is None or first is None or not is_cuda(first)\n"
        "                arrays.append(x if known else move(np.asarray(x), device_of(first)))\n",
        test=TESTS + "dtypes_and_python_numbers[float32]",
        device="cuda",
    ),
    Bug(
        row=66,  # CuPy wraps an index that is out of range
        file="tensor/ops/indexing.py",
        old="        parts, _ = on_device(parts, x.shape, x.device)  # raises what NumPy would\n",
        new="",
        test=TESTS + "ids_from_the_host",
        device="cuda",
    ),
    Bug(
        row=66,  # a view begins where its memory begins
        file="tensor/memory/devices.py",
        old="flat.data + layout.offset * itemsize",
        new="flat.data",
        test=TESTS + "values_gradients_dtypes_and_order[index-float64]",
        device="cuda",
    ),
    Bug(
        row=66,  # a transposed matrix is read as if it were row-major
        file="tensor/memory/devices.py",
        old=(
            "    return cupy().ndarray(layout.shape, dtype, flat.data + layout.offset * "
            "itemsize, strides)"
        ),
        new="    return cupy().ndarray(layout.shape, dtype, flat.data + layout.offset * itemsize)",
        test=TESTS + "values_gradients_dtypes_and_order[permute-float64]",
        device="cuda",
    ),
    Bug(
        row=66,  # for shape=() CuPy's zeros_like takes the array's own
        file="tensor/memory/devices.py",
        old="    return (cupy() if is_cuda(array) else np).zeros(shape, array.dtype)",
        new='    return np.zeros_like(array, order="C", shape=shape)',
        test=TESTS + "indices_of_a_scalar",
        device="cuda",
    ),
    Bug(
        row=66,  # CuPy's cumsum has its axis last in memory: .view raises there
        file="tensor/ops/reductions.py",
        old="    return y if y.flags.c_contiguous else y.copy()",
        new="    return y",
        test=TESTS + "values_gradients_dtypes_and_order[cumsum-float64]",
        device="cuda",
    ),
    Bug(
        row=66,  # NumPy's bools ** 2 are a square, an int8; CuPy's an int64
        file="tensor/ops/elementwise.py",
        old="np.power(a, b) if type(b) is int and a.dtype == bool else a**b",
        new="a**b",
        test=TESTS + "dtypes_and_python_numbers[bool]",
        device="cuda",
    ),
    Bug(
        row=66,  # 1 + tanh u loses its digits near -1, in each library its own
        file="tensor/ops/activations.py",
        old="    q /= 1 + q\n    product *= q\n",
        new="    q = 1 - 1 / (1 + q)\n    product *= q\n",
        test=TESTS + "not_a_number_infinity_and_zero[gelu tanh-float32]",
        device="cuda",
    ),
    Bug(
        row=66,  # ids that are still on the host go to the GPU unseen, and wrap there
        file="tensor/ops/inputs.py",
        old=(
            "        if name in LOOK_FIRST:\n"
            "            LOOK_FIRST[name](device, *inputs, **options)\n"
        ),
        new="",
        test=TESTS + "ids_from_the_host",
        device="cuda",
    ),
    Bug(
        row=66,  # a write of a wrong shape raises NumPy's own ValueError, and CuPy's
        file="tensor/ops/indexing.py",
        old='        shape = fitting(np.shape(value), on_device(key, target.shape, "cpu")[1])',
        new="        shape = np.shape(value)",
        test=TESTS + "writes_that_do_not_fit",
    ),
]
