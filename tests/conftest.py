"""`--device cuda` runs the same tests on a GPU: tests take the `device` fixture and make their
tensors there.
"""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Callable
from typing import Any, cast

import pytest
import threadpoolctl
from hypothesis import HealthCheck, settings

from tensor import kernels

settings.register_profile(
    "default",
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
settings.register_profile("thorough", parent=settings.get_profile("default"), max_examples=1000)
settings.load_profile("default")

CORE_MINUTES = 20  # that all tests take


# the products of tests are small: a second thread only waits, here and in the processes of tests
threadpoolctl.threadpool_limits(1, user_api="blas")
os.environ |= {"OPENBLAS_NUM_THREADS": "1", "TENSOR_THREADS": "1"}

# nohup and a background job of a script hand down signals that are ignored; the tests send them
signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGHUP"):
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--device",
        default="cpu",
        help="cpu (default), cuda or cuda:N: where the tests make their tensors",
    )
    parser.addoption(
        "--poison",
        action="store_true",
        help="fill all new memory of the GPU with NaN: a kernel must not read what nobody wrote",
    )


def pytest_report_header(config: pytest.Config) -> str | None:
    """How long all tests take: the second command of the README runs them."""
    if config.args_source is not pytest.Config.ArgsSource.TESTPATHS:
        return None
    cores = os.cpu_count() or 1
    minutes = max(1, round(CORE_MINUTES / cores))
    return f"all tests: about {minutes} minutes if each of {cores} cores is free (-n auto)"


def pytest_collection_finish() -> None:
    """The collector of garbage, `gc.get_objects` and `explain` pass over what pytest collected."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def poisoned(request: pytest.FixtureRequest) -> None:
    """All bits of new memory of the GPU are 1, which is NaN in every float type and -1."""
    if not request.config.getoption("--poison"):
        return
    import cupy

    from tensor.kernels.cuda.graphs import Memory

    def filling(malloc: Callable[[int], Any]) -> Callable[[int], Any]:
        def filled(size: int) -> Any:
            memory = malloc(size)
            memory.memset_async(0xFF, size)
            return memory

        return filled

    cuda = cupy.cuda
    cuda.set_allocator(filling(cupy.get_default_memory_pool().malloc))
    cast(Any, Memory).used = lambda own: cuda.using_allocator(filling(own._pool.malloc))


@pytest.fixture(scope="session")
def device(request: pytest.FixtureRequest) -> str:
    """The device under test."""
    return str(request.config.getoption("--device"))


@pytest.fixture
def gpu(device: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The GPU under test, with kernels, also where the environment turns them off."""
    if device == "cpu":
        pytest.skip("needs a GPU: --device cuda")
    monkeypatch.setattr(kernels, "_DISABLED", False)
    return device
