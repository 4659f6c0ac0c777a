"""Bugs of the first hour: numbers and gradients that changed without a word."""

from __future__ import annotations

from tests.zoo.bug import Bug

CREATION = "tests/tensor/test_creation.py::"
DTYPES = "tests/tensor/test_dtypes.py::"
INPUTS = "tensor/ops/inputs.py"

SCALE = "tests/tinygpt/model/test_gpt.py::test_sinusoids_meet_token_embeddings_times_the_root_of"
SCALE += "_the_width"
CACHED = "tests/tinygpt/model/test_cache.py::test_bug_56_kernel_of_the_cache"

ZOO = [
    Bug(  # sinusoids hide the tokens
        row=97,
        file="tinygpt/model/transformer.py",
        old="math.sqrt(config.width) if config.scaled else 1.0",
        new="1.0",
        test=SCALE,
    ),
    Bug(  # the cache's kernel leaves the factor out
        row=97,
        file="tensor/kernels/cpu/decoder.c",
        old="= (float)scale * token[j]",
        new="= token[j]",
        test=CACHED,
    ),
    Bug(  # the gradient of the token table leaves the factor out
        row=97,
        file="tensor/kernels/cpu/embedding.c",
        old="+= (float)scale * from[",
        new="+= from[",
        test="tests/tensor/kernels/test_cpu.py::test_positional_embedding",
    ),
    Bug(  # a run of an older version is read as one of today
        row=97,
        file="tinygpt/runs/run.py",
        old='if "scaled" not in',
        new='if "positions" not in',
        test="tests/tinygpt/runs/test_run.py::test_a_run_of_an_older_version_keeps_its_meaning",
    ),
    Bug(  # 0.1 goes through float32 into float64
        row=97,
        file="tensor/base.py",
        old="devices.from_python(data, dtype)",
        new="devices.from_python(data)",
        test=CREATION + "test_python_floats_keep_their_bits_in_float64",
    ),
    Bug(  # a list beside a float64 tensor is made float32 first
        row=97,
        file=INPUTS,
        old="TensorBase.kind(x, dtype=dtype, device=device)",
        new="TensorBase.kind(x, device=device)",
        test=CREATION + "test_python_floats_keep_their_bits_in_float64",
    ),
    Bug(  # dtype=None is NumPy's float64
        row=97,
        file="tensor/dtypes.py",
        old="default if dtype is None else np.dtype(dtype)",
        new="np.dtype(dtype)",
        test=CREATION + "test_no_dtype_by_name_is_the_default",
    ),
    Bug(  # and loses the dtype of x in zeros_like
        row=97,
        file="tensor/creation.py",
        old="for name, value in options.items() if value is not None}",
        new="for name, value in options.items()}",
        test=CREATION + "test_no_dtype_by_name_is_the_default",
    ),
    Bug(  # 300 becomes 44
        row=97,
        file="tensor/memory/devices.py",
        old="if not bounds.min <= number <= bounds.max:",
        new="if False:",
        test=CREATION + "test_a_number_that_an_integer_dtype_cannot_hold",
    ),
    Bug(  # probabilities are read as logits
        row=97,
        file="tensor/ops/losses.py",
        old="    losses = -targets * log_p - (1 - targets) * log_q\n",
        new="    losses = np.log1p(np.exp(p)) - p * targets\n",
        test="tests/tensor/ops/test_losses.py::test_binary_cross_entropy_takes_probabilities",
    ),
    Bug(  # modules in a dictionary never learn
        row=97,
        file="tensor/nn/module.py",
        old="elif isinstance(value, (list, tuple, dict)):",
        new="elif isinstance(value, (list, tuple)):",
        test="tests/tensor/nn/test_modules.py::test_modules_in_containers_learn",
    ),
    Bug(  # np.r_[x, x] and np.mean([x, x]) drop the gradient
        row=97,
        file="tensor/base.py",
        old="        if self.node is not None and MODE.get().recording:\n",
        new="        if False:\n",
        test="tests/tensor/test_interop.py::test_numpy_takes_no_values_of_a_graph_unsaid",
    ),
    Bug(  # float64 of NumPy makes all that it meets float64
        row=97,
        file=INPUTS,
        old="met = {x.dtype for x in inputs if isinstance(x, TensorBase)}",
        new='met = {x.dtype for x in inputs if hasattr(x, "dtype")}',
        test=DTYPES + "test_arrays_and_numbers_take_the_dtype_of_the_tensors",
    ),
    Bug(  # and so beside integer tensors
        row=97,
        file=INPUTS,
        old="floats if met and FLOATS & dtypes else promote(*dtypes)",
        new="promote(*dtypes)",
        test=DTYPES + "test_integers_that_become_floats_become_float32",
    ),
    Bug(  # int64 * 2.5 is float64
        row=97,
        file="tensor/ops/op.py",
        old="    return y.astype(float32) if dtype == float64 else y, backward\n",
        new="    return y, backward\n",
        test=DTYPES + "test_integers_that_become_floats_become_float32",
    ),
    Bug(  # exp of an int8 has the 11 bits of a float16
        row=97,
        file="tensor/ops/op.py",
        old="    if dtype == float16:\n",
        new="    if False:\n",
        test=DTYPES + "test_integers_that_become_floats_become_float32",
    ),
    Bug(  # a float32 network computes in float64
        row=97,
        file="tensor/nn/layers.py",
        old="x.to(parameter.dtype) if isinstance(x, Tensor) and x.dtype != parameter.dtype else x",
        new="x",
        test=DTYPES + "test_a_layer_computes_in_the_dtype_of_its_parameters",
    ),
    Bug(  # squeeze of an axis that is longer than 1 does nothing
        row=97,
        file="tensor/memory/layout.py",
        old="if axis is not None and longer:",
        new="if False:",
        test="tests/tensor/memory/test_layout.py::test_shapes_that_do_not_fit_raise",
    ),
    Bug(  # loss += term is refused
        row=97,
        file="tensor/tensor.py",
        old="if MODE.get().recording and (carries or not x.is_leaf):",
        new="if False:",
        test="tests/tensor/memory/test_writes.py::test_assignment_to_a_result_makes_a_new_tensor",
    ),
    Bug(  # h += 1 writes into a result that others hold
        row=97,
        file="tensor/tensor.py",
        old="if MODE.get().recording and (carries or not x.is_leaf):",
        new="if MODE.get().recording and carries:",
        test="tests/tensor/memory/test_writes.py::test_assignment_to_a_result_makes_a_new_tensor",
    ),
    Bug(  # a leaf is rebound, and its optimiser keeps the old one
        row=97,
        file="tensor/tensor.py",
        old="value.requires_grad and not x.requires_grad",
        new="value.requires_grad",
        test="tests/tensor/memory/test_writes.py::test_assignment_to_a_result_makes_a_new_tensor",
    ),
    Bug(  # a second backward replaces the kept gradient of a result
        row=97,
        file="tensor/graph.py",
        old="self.gradient = dy if self.gradient is None else self.gradient + dy",
        new="self.gradient = dy",
        test="tests/tensor/autograd/test_grad.py::test_a_result_keeps_its_gradient_when_asked",
    ),
    Bug(  # the .grad of a result is never found
        row=97,
        file="tensor/graph.py",
        old="        return hook.gradient\n",
        new="        pass\n",
        test="tests/tensor/autograd/test_grad.py::test_a_result_keeps_its_gradient_when_asked",
    ),
    Bug(  # one element of shape (1,) is no scalar
        row=97,
        file="tensor/autograd/backward.py",
        old="if y.size != 1:",
        new="if y.shape != ():",
        test="tests/tensor/autograd/test_backward.py::"
        "test_bug_11_backward_of_a_non_scalar_guesses_ones",
    ),
    Bug(  # a class that defines forward cannot be called
        row=97,
        file="tensor/nn/module.py",
        old="        return forward(*inputs, **options)\n",
        new="        return None\n",
        test="tests/tensor/nn/test_modules.py::test_a_module_may_define_forward",
    ),
]
