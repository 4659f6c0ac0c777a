"""Bugs of the graph: accumulation, who gets a gradient, memory, modes and mutation."""

from __future__ import annotations

from tests.zoo.bug import Bug

GRAPH, MODE = "tensor/graph.py", "tensor/mode.py"

ACCUMULATION = [
    Bug(
        1,
        "tensor/base.py",
        "            np.add(total, dx, out=total)\n",
        "            total[...] = dx\n",
        "tests/tensor/autograd/test_backward.py::test_bug_01_overwrite_instead_of_accumulate",
    ),
    Bug(
        1,
        "tensor/autograd/backward.py",
        "        elif entry[1]:\n            np.add(entry[0], dx, out=entry[0])\n",
        "        elif True:\n            self.total[node] = dx, True\n",
        "tests/tensor/autograd/test_backward.py::test_bug_01_overwrite_instead_of_accumulate",
    ),
    # breadth first from the root: a node is passed on before the longer of two paths has reached it
    Bug(
        2,
        GRAPH,
        "    found.sort(key=_by_order)\n",
        "    found.reverse()\n",
        "tests/tensor/autograd/test_backward.py::test_bug_02_propagating_before_all_contributions",
    ),
    Bug(
        3,
        "tensor/autograd/backward.py",
        "        alone = _is_alone(dx, node, upstream, gradients)\n",
        "        alone = dx.flags.writeable\n",
        "tests/tensor/memory/test_aliasing.py::test_bug_03_aliased_gradient_buffers",
    ),
    Bug(
        3,
        "tensor/autograd/backward.py",
        "    if dx.base is not None:\n        return False\n",
        "",
        "tests/tensor/memory/test_aliasing.py::test_bug_03_gradients_that_pass_through",
    ),
    Bug(
        3,
        "tensor/autograd/backward.py",
        "    return holders <= 1\n",
        "    return True\n",
        "tests/tensor/memory/test_aliasing.py::test_bug_03_careless_rules",
    ),
    Bug(
        3,
        "tensor/autograd/backward.py",
        "    for _, _, array in node.saved:\n        if array is dx:\n            return False\n",
        "",
        "tests/tensor/memory/test_aliasing.py::test_bug_03_careless_rules",
    ),
    Bug(
        4,
        "tensor/autograd/backward.py",
        "        elif entry[1]:\n",
        "        elif True:\n",
        (
            "tests/tensor/autograd/test_backward.py::"
            "test_bug_04_read_only_broadcast_used_as_accumulator"
        ),
    ),
    Bug(
        4,
        "tensor/base.py",
        "holding(dx if fresh else dx.copy())",
        "holding(dx)",
        (
            "tests/tensor/autograd/test_backward.py::"
            "test_bug_04_read_only_broadcast_used_as_accumulator"
        ),
    ),
    Bug(  # a pass that starts from what the one before left behind
        5,
        "tensor/autograd/backward.py",
        "        entry = self.total.get(node)\n",
        '        stale = vars(np).setdefault("_stale", {})\n'
        "        entry = self.total.get(node, stale.get(node))\n"
        "        stale[node] = dx, False\n",
        "tests/tensor/autograd/test_backward.py::test_bug_05_stale_gradients_on_a_second_backward",
    ),
    Bug(
        5,
        "tensor/autograd/backward.py",
        "            node.free()\n",
        "            pass\n",
        "tests/tensor/autograd/test_backward.py::test_bug_05_stale_gradients_on_a_second_backward",
    ),
    Bug(
        6,
        GRAPH,
        "    found = list(seen)\n    for node in found:  # which grows meanwhile\n"
        "        for parent in node.parents:\n"
        "            if parent is not None and parent not in seen and parent.order >= "
        "since:\n                seen.add(parent)\n"
        "                found.append(parent)\n",
        "\n    def visit(node: Any) -> None:\n        seen.add(node)\n"
        "        for parent in node.parents:\n"
        "            if parent is not None and parent not in seen:\n"
        "                visit(parent)\n\n    for root in list(seen):\n        visit(root)\n"
        "    found = list(seen)\n",
        "tests/tensor/autograd/test_memory.py::test_bug_06_recursion_depth",
    ),
    Bug(  # a node that knows its tensor, which knows its node
        7,
        "tensor/autograd/forward.py",
        "node = Node(name, tuple(",
        'node = Node(type("Name", (str,), {"tensor": out})(name), tuple(',
        "tests/tensor/autograd/test_memory.py::test_bug_07_reference_cycles_keep_the_graph",
    ),
    Bug(
        7,
        GRAPH,
        "        self.backward, self.saved, self.parents = None, (), ()\n",
        "        self.backward, self.parents = None, ()\n",
        "tests/tensor/autograd/test_memory.py::test_saved_arrays_are_released_as_the_walk_goes",
    ),
]

WHO_GETS_ONE = [
    Bug(
        8,
        "tensor/ops/reductions.py",
        "    return total(x, axes, keepdims, count), (dx,)\n",
        "    return total(x, axes, keepdims, count), None\n",
        "tests/tensor/autograd/test_backward.py::test_bug_08_op_drops_its_gradient",
    ),
    Bug(
        8,
        "tensor/ops/activations.py",
        "    return np.maximum(x, 0), (lambda dy: dy * ~(x <= 0),)\n",
        "    return np.maximum(x, 0), (None,)\n",
        "tests/tensor/autograd/test_backward.py::test_bug_08_op_drops_its_gradient",
    ),
    Bug(
        8,
        "tensor/ops/elementwise.py",
        "        return ufunc(a, b), None\n",
        "        return ufunc(a, b), (lambda dy: dy, lambda dy: dy)\n",
        "tests/tensor/autograd/test_backward.py::test_bug_08_ops_without_gradient_do_not_crash",
    ),
    Bug(
        9,
        "tensor/base.py",
        "self.node = self.leaf or Accumulator(self.shape, self.dtype)\n",
        "self.node = vars(devices).setdefault(self.array.tobytes(), "
        "Accumulator(self.shape, self.dtype))\n",
        "tests/tensor/autograd/test_backward.py::test_bug_09_equal_leaves_merged",
    ),
    Bug(
        11,
        "tensor/autograd/backward.py",
        "        if y.size != 1:\n",
        "        if False:\n",
        "tests/tensor/autograd/test_backward.py::test_bug_11_backward_of_a_non_scalar_guesses_ones",
    ),
    Bug(
        12,
        "tensor/base.py",
        "        if value and self.dtype not in FLOATS:\n",
        "        if False:\n",
        "tests/tensor/autograd/test_backward.py::test_bug_12_requires_grad_on_integers",
    ),
    Bug(
        13,
        "tensor/base.py",
        "        return TensorBase.over(self.storage, self.layout)\n",
        "        out = TensorBase.over(self.storage, self.layout)\n"
        "        out.node = self.node\n        return out\n",
        "tests/tensor/autograd/test_backward.py::test_bug_13_detached_and_frozen_tensors",
    ),
    Bug(
        13,
        "tensor/autograd/forward.py",
        (
            "        if type(backward) is tuple:\n"
            "            backward = _wanted(backward, parents)\n"
            "    shape, line = y.shape, user_place(2)\n"
        ),
        (
            "        if type(backward) is tuple:\n"
            "            pass\n"
            "    shape, line = y.shape, user_place(2)\n"
        ),
        "tests/tensor/autograd/test_grad.py::test_bug_13_frozen_inputs_cost_no_work",
    ),
    Bug(
        14,
        "tensor/autograd/backward.py",
        "found.get(x.node)",
        "found.get(x.node, np.zeros(x.shape))",
        "tests/tensor/autograd/test_backward.py::test_bug_14_unused_outputs",
    ),
    Bug(
        14,
        "tensor/autograd/backward.py",
        "dy if type(dy) is list else (dy,)",
        "dy if node.outputs > 1 else (dy,)",
        "tests/tensor/autograd/test_backward.py::test_bug_14_unused_outputs",
    ),
    Bug(
        14,
        "tensor/ops/views.py",
        "zeros_like(like, p.shape)",
        "(zeros_like(like, p.shape) + 1)",
        "tests/tensor/autograd/test_backward.py::test_bug_14_unused_outputs",
    ),
]

NO_GRAD = [
    Bug(
        10,
        MODE,
        "        mode[self._key] = outer\n",
        "        mode[self._key] = Mode()\n",
        "tests/tensor/autograd/test_modes.py::test_bug_10_no_grad_leaks_nesting_and_exceptions",
    ),
    Bug(
        10,
        MODE,
        "            with self:\n                return function(*args, **kwargs)\n",
        "            self.__enter__()\n            result = function(*args, **kwargs)\n"
        "            self.__exit__(None, None, None)\n            return result\n",
        "tests/tensor/autograd/test_modes.py::test_bug_10_no_grad_leaks_from_functions",
    ),
    Bug(
        10,
        MODE,
        (
            "        if (\n"
            "            inspect.isgeneratorfunction(function)\n"
            "            or inspect.iscoroutinefunction(function)\n"
            "            or inspect.isasyncgenfunction(function)\n"
            "        ):\n"
        ),
        "        if inspect.iscoroutinefunction(function) or "
        "inspect.isasyncgenfunction(function):\n",
        "tests/tensor/autograd/test_modes.py::test_bug_10_no_grad_leaks_from_generators",
    ),
    Bug(
        10,
        MODE,
        (
            "        if (\n"
            "            inspect.isgeneratorfunction(function)\n"
            "            or inspect.iscoroutinefunction(function)\n"
            "            or inspect.isasyncgenfunction(function)\n"
            "        ):\n"
        ),
        "        if inspect.isgeneratorfunction(function) or "
        "inspect.isasyncgenfunction(function):\n",
        "tests/tensor/autograd/test_modes.py::test_bug_10_no_grad_leaks_from_generators",
    ),
    Bug(
        10,
        MODE,
        " or inspect.isasyncgenfunction(function)",
        "",
        "tests/tensor/autograd/test_modes.py::test_bug_10_no_grad_leaks_from_generators",
    ),
    Bug(
        10,
        MODE,
        "        return self.switch.over(self.outer[key])\n",
        "        return self\n",
        (
            "tests/tensor/autograd/test_modes.py::"
            "test_bug_10_no_grad_leaks_from_interleaved_generators"
        ),
    ),
    Bug(  # an exit takes back the innermost switch, whosever that is
        10,
        MODE,
        "        return self.switch.over(self.outer[key])\n",
        "        return self.outer\n",
        "tests/tensor/autograd/test_modes.py::test_bug_10_no_grad_leaks_into_another_context",
    ),
    Bug(  # one mode for all threads
        10,
        MODE,
        'MODE: ContextVar[Mode] = ContextVar("tensor_mode", default=Mode())',
        'MODE: Any = type("Shared", (), {"mode": Mode(), "get": lambda self: self.mode, '
        '"set": lambda self, mode: [setattr(self, "mode", mode)]})()',
        "tests/tensor/autograd/test_modes.py::test_bug_10_no_grad_leaks_between_threads",
    ),
]

MUTATION_ROWS = [
    Bug(
        21,
        "tensor/autograd/backward.py",
        "            if storage.version != version and (",
        "            if False and (",
        "tests/tensor/memory/test_mutation.py::test_bug_21_in_place_after_save",
    ),
    Bug(
        21,
        "tensor/autograd/forward.py",
        "        for at in kept[1]:",
        "        for at in ():",
        "tests/tensor/memory/test_mutation.py::test_bug_21_in_place_after_save",
    ),
    Bug(
        21,
        "tensor/autograd/forward.py",
        "elif array.base is None and not views:",
        "elif array.base is None:",
        "tests/tensor/memory/test_mutation.py::test_bug_21_in_place_after_save",
    ),
    Bug(
        21,
        "tensor/autograd/forward.py",
        "for x in tensors if shares_memory(x._array, array)]",
        "for x in tensors if False]",
        "tests/tensor/memory/test_mutation.py::test_bug_21_in_place_after_save",
    ),
    Bug(
        21,
        "tensor/ops/inputs.py",
        "            options[key] = value.array.copy()",
        "            options[key] = value.array",
        "tests/tensor/memory/test_mutation.py::test_bug_21_conditions_indices_and_options",
    ),
    Bug(
        22,
        "tensor/base.py",
        "TensorBase.over(self.storage, self.layout)",
        "TensorBase.from_array(self.array)",
        "tests/tensor/memory/test_mutation.py::test_bug_22_view_loses_the_version_counter",
    ),
    Bug(
        22,
        "tensor/ops/op.py",
        "        out = TensorBase.over(x.storage, layouts)\n",
        "        out = TensorBase.over(type(x.storage)(x.storage.flat), layouts)\n",
        "tests/tensor/memory/test_mutation.py::test_bug_22_view_loses_the_version_counter",
    ),
    Bug(
        22,
        "tensor/base.py",
        "self.node is None and not self.storage.saved\n",
        "self.node is None\n",
        (
            "tests/tensor/memory/test_mutation.py::"
            "test_bug_22_numpy_windows_are_read_only_while_a_graph_needs_them"
        ),
    ),
    Bug(
        22,
        "tensor/base.py",
        "                self._storage = self._storage or Storage(self._array)\n",
        "                pass\n            self._storage = Storage(self._array)\n",
        "tests/tensor/autograd/test_modes.py::test_bug_22_threads_agree_on_the_storage_of_a_leaf",
    ),
    Bug(
        23,
        "tensor/tensor.py",
        "        value = self.writable(region, value)\n",
        "        self.array[key] = value.array if isinstance(value, Tensor) else value\n"
        "        value = self.writable(region, value)\n",
        "tests/tensor/memory/test_writes.py::test_bug_23_raise_after_mutating",
    ),
    Bug(
        23,
        "tensor/tensor.py",
        "        value = x.writable(x.layout, value)\n        try:\n"
        '            ufunc(x.array, value, out=x.array, casting="same_kind")\n',
        "        data = value.array if isinstance(value, Tensor) else value\n        try:\n"
        '            ufunc(x.array, data, out=x.array, casting="same_kind")\n'
        "            x.writable(x.layout, value)\n",
        "tests/tensor/memory/test_writes.py::test_bug_23_raise_after_mutating",
    ),
    Bug(
        23,
        "tensor/autograd/backward.py",
        "    _check_usable(visited)\n",
        "",
        "tests/tensor/memory/test_writes.py::test_bug_23_backward_raises_before_it_deposits",
    ),
    Bug(
        24,
        "tensor/tensor.py",
        "        if not self.is_leaf and not graph.freed(self.node):\n",
        "        if False:\n",
        "tests/tensor/memory/test_writes.py::test_bug_24_setitem_outside_the_graph",
    ),
    Bug(
        24,
        "tensor/tensor.py",
        "            if value.node is not None and recording:\n",
        "            if False:\n",
        "tests/tensor/memory/test_writes.py::test_bug_24_setitem_outside_the_graph",
    ),
    Bug(
        25,
        "tensor/tensor.py",
        "        if region.self_overlaps:\n",
        "        if False:\n",
        "tests/tensor/memory/test_writes.py::test_bug_25_overlapping_write",
    ),
]

ZOO = [*ACCUMULATION, *WHO_GETS_ONE, *NO_GRAD, *MUTATION_ROWS]
