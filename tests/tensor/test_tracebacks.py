"""A user's error is short: the user's line, one line of the engine, and the message."""

from __future__ import annotations

import pdb
import re
import subprocess
import sys
import traceback
from io import StringIO
from pathlib import Path

import pytest

import tensor
from tensor import nn, optim
from tensor.errors import TensorError

FAILING = {
    "shapes": "tensor.ones(2, 3) + tensor.ones(4)",
    "dtype": "tensor.Tensor([1, 2], requires_grad=True)",
    "a freed graph": "y = (x * x).sum()\ny.backward()\ny.backward()",
    "a mutation": "y = (x * x).sum()\nwith tensor.no_grad():\n    x[0] = 5.0\ny.backward()",
    "a view": "tensor.ones(2, 3).T.view(6)",
    "an index": "x[5]",
    "not a number": "with tensor.detect_anomaly():\n    y = x / 0.0",
    "a missing name": "x.summ()",
    "an axis": "tensor.ones(2, 3).sum(axis=5)",
    "a device": "tensor.ones(3, device='cud')",
    "a matrix product": "tensor.ones(2, 3) @ tensor.ones(2, 3)",
    "a shape": "tensor.ones(2, 3).reshape(4, 2)",
    "a target": "tensor.cross_entropy(tensor.ones(2, 5), tensor.Tensor([1, 7]))",
    "no scalar": "(x * x).backward()",
}


@pytest.mark.parametrize("program", FAILING.values(), ids=FAILING)
def test_a_traceback_has_at_most_8_lines(tmp_path: Path, program: str) -> None:
    file = tmp_path / "program.py"
    start = "import tensor\nx = tensor.ones(3, requires_grad=True)\n"
    file.write_text(start + program + "\n")
    run = subprocess.run([sys.executable, file], capture_output=True, text=True)
    text = run.stderr[run.stderr.index("Traceback") :]
    assert len(text.splitlines()) <= 8, text
    assert text.count('  File "') <= 2, text
    assert f'File "{file}"' in text
    assert "During handling" not in text


IN_PROCESS = {
    "load": "tensor.load('missing')",
    "load of a module": "nn.Linear(1, 1).load('missing')",
    "save": "tensor.save('missing/x', {})",
    "save of a module": "nn.Linear(1, 1).save('missing/x')",
    "an option of an optimiser": "optim.SGD(nn.Linear(1, 1), lr=-1)",
    "no option of an optimiser": "optim.Adam(nn.Linear(1, 1), amsgrad=True)",
    "no parameters": "optim.Muon(tensor.ones(2))",
    "a frozen list": "optim.AdamW([tensor.ones(2)])",
    "a rate": "optim.SGD([x]).lr = -1",
    "groups": "optim.SGD([x]).param_groups = []",
    "a closure": "optim.SGD([x]).step(closure=print)",
    "a limit": "optim.clip_gradients([x], -1)",
    "no optimiser": "optim.clipped_step(1.0, 1.0)",
    "text for a number": "tensor.layer_norm(x, x, x, eps='a')",
    "a norm of pytorch": "optim.clip_gradients([x], max_norm=1.0)",
    "two optimisers": "old = optim.SGD([x])\noptim.SGD([x, y])\nold.step()",
    "a number too large": "tensor.ones(2, dtype='int8') + 300",
    "no hook": "x.register_hook(3)",
    "a hook that fails": "x.register_hook(lambda dy: 1 / 0)\n(x * y).sum().backward()",
    "a hook that is refused": "x.register_hook(lambda dy: dy.view(7))\n(x * y).sum().backward()",
    "a hook in grad": "x.register_hook(lambda dy: 1 / 0)\ntensor.grad((x * y).sum(), x)",
}


@pytest.mark.parametrize("program", IN_PROCESS.values(), ids=IN_PROCESS)
def test_a_traceback_shows_one_line_of_the_engine(tmp_path: Path, program: str) -> None:
    file = tmp_path / "program.py"
    file.write_text(program)
    names = {"tensor": tensor, "nn": nn, "optim": optim}
    names |= {name: tensor.ones(3, requires_grad=True) for name in "xy"}
    with pytest.raises((TensorError, OSError, ArithmeticError)) as error:
        exec(compile(program, file, "exec"), names)
    shown = traceback.extract_tb(error.value.__traceback__)[1:]
    ours = [frame for frame in shown if frame.filename != str(file)]
    assert ours[0] is shown[1]
    assert len(shown) <= 2 or shown[2].name == "<lambda>", shown  # the hook's line
    assert len(ours) <= 2, shown
    assert error.value.__suppress_context__ or error.value.__context__ is None
    if "view" not in program:  # which fails in an op
        assert len(ours) == 1


def test_eight_steps_of_a_debugger_lead_into_the_product() -> None:
    """`s` on `a * b` with two ready tensors."""
    program = "\n".join(
        [
            "import tensor",
            "a, b = tensor.ones(3, requires_grad=True), tensor.ones(3)",
            "a * b",
            "debugger.set_trace()",
            "a * b",
        ]
    )
    out = StringIO()
    debugger = pdb.Pdb(stdin=StringIO("s\n" * 9 + "c\n"), stdout=out, nosigint=True, readrc=False)
    debugger.use_rawinput = False
    exec(compile(program, "user.py", "exec"), {"debugger": debugger})
    stops = re.findall(r"> (\S+)\(\d+\)(\S+)\(\)", out.getvalue())[1:]
    presses = next(i for i, (file, _) in enumerate(stops, 1) if "elementwise.py" in file)
    assert presses <= 8
    assert {name for _, name in stops[:presses]} == {"multiply"}
