"""Rows 1 to 14 and 21 to 25: the graph, accumulation, memory, mutation, and how ops run just now."""

from __future__ import annotations

from tests.zoo.bug import Bug

TAPE, AUTOGRAD, CORE, OP, RESULTS, MODE = (f"tensor/{name}.py" for name in ("graph", "autograd", "core", "op", "results", "mode"))
GRAPH, GRAD, ALIASING, MEMORY = (f"tests/tensor/test_{name}.py::" for name in ("graph", "grad", "aliasing", "memory"))
MUTATION, WRITES, MODES = (f"tests/tensor/test_{name}.py::" for name in ("mutation", "writes", "modes"))

ACCUMULATION = [
    Bug(1, TAPE, "            np.add(buffer, dx, out=buffer)\n", "            buffer[...] = dx\n", f"{GRAPH}test_bug_01_overwrite_instead_of_accumulate"),
    Bug(
        1,
        AUTOGRAD,
        "    elif node in fresh:\n        np.add(have, dx, out=have)\n",
        "    elif True:\n        table[node] = dx\n",
        f"{GRAPH}test_bug_01_overwrite_instead_of_accumulate",
    ),
    Bug(  # breadth first from the root: a node is passed on before the longer of two paths has reached it
        2,
        TAPE,
        "    seen = set(roots)\n    stack = list(seen)\n    while stack:\n        for parent in stack.pop().parents:\n"
        "            if parent is not None and parent not in seen and parent.order >= since:\n                seen.add(parent)\n"
        "                stack.append(parent)\n"
        "    return sorted(seen, key=_by_order)\n",
        "    seen = list(dict.fromkeys(roots))\n    for node in seen:\n"
        "        seen += [p for p in dict.fromkeys(node.parents) if p is not None and p not in seen]\n    return seen[::-1]\n",
        f"{GRAPH}test_bug_02_propagating_before_all_contributions",
    ),
    Bug(
        3,
        AUTOGRAD,
        "        alone = _is_alone(dx, node, upstream, gradients)\n",
        "        alone = dx.flags.writeable\n",
        f"{ALIASING}test_bug_03_aliased_gradient_buffers",
    ),
    Bug(3, AUTOGRAD, "    if dx.base is not None:\n        return False\n", "", f"{ALIASING}test_bug_03_gradients_that_pass_through"),
    Bug(3, AUTOGRAD, "    return holders <= 1\n", "    return True\n", f"{ALIASING}test_bug_03_careless_rules"),
    Bug(
        3,
        AUTOGRAD,
        "    for _, _, array in node.saved:\n        if array is dx:\n            return False\n",
        "",
        f"{ALIASING}test_bug_03_careless_rules",
    ),
    Bug(
        4,
        AUTOGRAD,
        "    elif node in fresh:\n",
        "    else:\n        np.add(have, dx, out=have)\n        return\n    if node in fresh:\n",
        f"{GRAPH}test_bug_04_read_only_broadcast_used_as_accumulator",
    ),
    Bug(
        4,
        TAPE,
        "Tensor.from_array(dx if fresh else dx.copy())",
        "Tensor.from_array(dx)",
        f"{GRAPH}test_bug_04_read_only_broadcast_used_as_accumulator",
    ),
    Bug(  # a pass that starts from what the one before left behind
        5,
        AUTOGRAD,
        "    have = table.get(node)\n",
        '    stale = vars(np).setdefault("_stale", {})\n    have = table[node] if node in table else stale.get(node)\n    stale[node] = dx\n',
        f"{GRAPH}test_bug_05_stale_gradients_on_a_second_backward",
    ),
    Bug(5, AUTOGRAD, "            node.free()\n", "            pass\n", f"{GRAPH}test_bug_05_stale_gradients_on_a_second_backward"),
    Bug(
        6,
        TAPE,
        "    stack = list(seen)\n    while stack:\n        for parent in stack.pop().parents:\n"
        "            if parent is not None and parent not in seen and parent.order >= since:\n                seen.add(parent)\n"
        "                stack.append(parent)\n",
        "\n    def visit(node: Any) -> None:\n        seen.add(node)\n        for parent in node.parents:\n"
        "            if parent is not None and parent not in seen:\n                visit(parent)\n\n    for root in list(seen):\n        visit(root)\n",
        f"{MEMORY}test_bug_06_recursion_depth",
    ),
    Bug(  # a node that knows its tensor, which knows its node
        7,
        RESULTS,
        "    out.node = Node(name, tuple(parents)",
        '    out.node = Node(type("Name", (str,), {"tensor": out})(name), tuple(parents)',
        f"{MEMORY}test_bug_07_reference_cycles_keep_the_graph",
    ),
    Bug(
        7,
        TAPE,
        "        self.backward, self.saved, self.parents = None, (), ()\n",
        "        self.backward, self.parents = None, ()\n",
        f"{MEMORY}test_saved_arrays_are_released_as_the_walk_goes",
    ),
]

WHO_GETS_ONE = [
    Bug(
        8,
        "tensor/ops/reductions.py",
        "    return x.sum(axis=axes, keepdims=keepdims) / count, backward\n",
        "    return x.sum(axis=axes, keepdims=keepdims) / count, None\n",
        f"{GRAPH}test_bug_08_op_drops_its_gradient",
    ),
    Bug(
        8,
        "tensor/ops/activations.py",
        "    return np.maximum(x, 0), (lambda dy: dy * (x > 0),)\n",
        "    return np.maximum(x, 0), (None,)\n",
        f"{GRAPH}test_bug_08_op_drops_its_gradient",
    ),
    Bug(
        8,
        "tensor/ops/elementwise.py",
        "    return np.greater(a, b), None\n",
        "    return np.greater(a, b), (lambda dy: dy, lambda dy: dy)\n",
        f"{GRAPH}test_bug_08_ops_without_gradient_do_not_crash",
    ),
    Bug(
        9,
        CORE,
        "            self.node = Accumulator(self.shape, self.dtype)\n",
        "            self.node = vars(autograd).setdefault(self.array.tobytes(), Accumulator(self.shape, self.dtype))\n",
        f"{GRAPH}test_bug_09_equal_leaves_merged",
    ),
    Bug(11, AUTOGRAD, "        if y.shape != ():\n", "        if False:\n", f"{GRAPH}test_bug_11_backward_of_a_non_scalar_guesses_ones"),
    Bug(12, CORE, "        if value and self.dtype not in FLOATS:\n", "        if False:\n", f"{GRAPH}test_bug_12_requires_grad_on_integers"),
    Bug(
        13,
        CORE,
        "        return Tensor.over(self.storage, self.layout)\n",
        "        out = Tensor.over(self.storage, self.layout)\n        out.node = self.node\n        return out\n",
        f"{GRAPH}test_bug_13_detached_and_frozen_tensors",
    ),
    Bug(
        13,
        RESULTS,
        "            backward = _wanted(backward, parents)\n    shape, line",
        "            pass\n    shape, line",
        f"{GRAD}test_bug_13_frozen_inputs_cost_no_work",
    ),
    Bug(14, AUTOGRAD, "None if dx is None else Tensor", "Tensor(np.zeros(x.shape)) if dx is None else Tensor", f"{GRAPH}test_bug_14_unused_outputs"),
    Bug(14, AUTOGRAD, "dy if type(dy) is list else (dy,)", "dy if node.outputs > 1 else (dy,)", f"{GRAPH}test_bug_14_unused_outputs"),
    Bug(14, "tensor/ops/views.py", "zeros_like(like, p.shape)", "(zeros_like(like, p.shape) + 1)", f"{GRAPH}test_bug_14_unused_outputs"),
]

NO_GRAD = [
    Bug(10, MODE, "        mode[self._key] = outer\n", "        mode[self._key] = Mode()\n", f"{MODES}test_bug_10_no_grad_leaks_nesting_and_exceptions"),
    Bug(
        10,
        MODE,
        "            with self:\n                return function(*args, **kwargs)\n",
        "            self.__enter__()\n            result = function(*args, **kwargs)\n"
        "            self.__exit__(None, None, None)\n            return result\n",
        f"{MODES}test_bug_10_no_grad_leaks_from_functions",
    ),
    Bug(10, MODE, "inspect.isgeneratorfunction(function) or ", "", f"{MODES}test_bug_10_no_grad_leaks_from_generators"),
    Bug(10, MODE, "inspect.iscoroutinefunction(function) or ", "", f"{MODES}test_bug_10_no_grad_leaks_from_generators"),
    Bug(10, MODE, " or inspect.isasyncgenfunction(function)", "", f"{MODES}test_bug_10_no_grad_leaks_from_generators"),
    Bug(
        10, MODE, "        return self.switch.over(self.outer[key])\n", "        return self\n", f"{MODES}test_bug_10_no_grad_leaks_from_interleaved_generators"
    ),
    Bug(  # an exit takes back the innermost switch, whosever that is
        10,
        MODE,
        "        return self.switch.over(self.outer[key])\n",
        "        return self.outer\n",
        f"{MODES}test_bug_10_no_grad_leaks_into_another_context",
    ),
    Bug(  # one mode for all threads
        10,
        MODE,
        'MODE: ContextVar[Mode] = ContextVar("tensor_mode", default=Mode())',
        'MODE: Any = type("Shared", (), {"mode": Mode(), "get": lambda self: self.mode, "set": lambda self, mode: [setattr(self, "mode", mode)]})()',
        f"{MODES}test_bug_10_no_grad_leaks_between_threads",
    ),
]

MUTATION_ROWS = [
    Bug(21, AUTOGRAD, "            if storage.version != version and (", "            if False and (", f"{MUTATION}test_bug_21_in_place_after_save"),
    Bug(
        21,
        RESULTS,
        "        owners = [out for out in outs if out.array.base is held]\n",
        "        owners = []\n",
        f"{MUTATION}test_bug_21_in_place_after_save",
    ),
    Bug(
        21,
        RESULTS,
        "        owners = [x for x in tensors if shares_memory(x.array, held)]\n",
        "        owners = []\n",
        f"{MUTATION}test_bug_21_in_place_after_save",
    ),
    Bug(
        21,
        OP,
        "            options[key] = value.array.copy()",
        "            options[key] = value.array",
        f"{MUTATION}test_bug_21_conditions_indices_and_options",
    ),
    Bug(
        22,
        CORE,
        "        return Tensor.over(self.storage, self.layout)\n",
        "        return Tensor.from_array(self.array)\n",
        f"{MUTATION}test_bug_22_view_loses_the_version_counter",
    ),
    Bug(
        22,
        OP,
        "        out = core.Tensor.over(x.storage, layouts)\n",
        "        out = core.Tensor.over(type(x.storage)(x.storage.flat), layouts)\n",
        f"{MUTATION}test_bug_22_view_loses_the_version_counter",
    ),
    Bug(
        22,
        CORE,
        "self.node is None and not self.storage.saved\n",
        "self.node is None\n",
        f"{MUTATION}test_bug_22_numpy_windows_are_read_only_while_a_graph_needs_them",
    ),
    Bug(
        22,
        CORE,
        "                self._storage = self._storage or Storage(self._array)\n",
        "                pass\n            self._storage = Storage(self._array)\n",
        f"{MODES}test_bug_22_threads_agree_on_the_storage_of_a_leaf",
    ),
    Bug(
        23,
        CORE,
        "        value = self.writable(region, value)\n",
        "        self.array[key] = value.array if isinstance(value, Tensor) else value\n        value = self.writable(region, value)\n",
        f"{WRITES}test_bug_23_raise_after_mutating",
    ),
    Bug(
        23,
        CORE,
        '        value = self.writable(self.layout, value)\n        try:\n            ufunc(self.array, value, out=self.array, casting="same_kind")\n',
        "        data = value.array if isinstance(value, Tensor) else value\n        try:\n"
        '            ufunc(self.array, data, out=self.array, casting="same_kind")\n            self.writable(self.layout, value)\n',
        f"{WRITES}test_bug_23_raise_after_mutating",
    ),
    Bug(23, AUTOGRAD, "    _check_usable(passed)\n", "", f"{WRITES}test_bug_23_backward_raises_before_it_deposits"),
    Bug(
        24,
        CORE,
        "        if self.node is not None and not self.is_leaf and not graph.freed(self.node):\n",
        "        if False:\n",
        f"{WRITES}test_bug_24_setitem_outside_the_graph",
    ),
    Bug(24, CORE, "            if value.node is not None and recording:\n", "            if False:\n", f"{WRITES}test_bug_24_setitem_outside_the_graph"),
    Bug(25, CORE, "        if region.self_overlaps:\n", "        if False:\n", f"{WRITES}test_bug_25_overlapping_write"),
]

ZOO = [*ACCUMULATION, *WHO_GETS_ONE, *NO_GRAD, *MUTATION_ROWS]
