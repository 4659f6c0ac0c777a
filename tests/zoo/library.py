"""Bugs of the library of compiled kernels: which file is loaded, how it is built and shared."""

from __future__ import annotations

from tests.zoo.bug import Bug

PRIVATE, FILE, LOAD = (f"tensor/kernels/cpu/{n}.py" for n in ("private", "built", "compiled"))

ZOO = [
    Bug(
        82,
        PRIVATE,
        "if status.st_mode & OTHERS_WRITE and (",
        "if False and (",
        "tests/tensor/kernels/test_built.py::"
        "test_bug_82_a_planted_library_is_not_loaded[folder open to all, by the user]",
    ),
    Bug(
        82,
        PRIVATE,
        "not status.st_mode & stat.S_ISVTX)",
        "False)",
        "tests/tensor/kernels/test_built.py::"
        "test_bug_82_a_planted_library_is_not_loaded[folder above open to all]",
    ),
    Bug(
        82,
        PRIVATE,
        "not own or status.st_mode & OTHERS_WRITE",
        "not own",
        "tests/tensor/kernels/test_built.py::"
        "test_bug_82_a_planted_library_is_not_loaded[file open to all, by the user]",
    ),
    Bug(
        82,
        PRIVATE,
        " and status.st_uid == os.geteuid()\n",
        "\n",
        "tests/tensor/kernels/test_built.py::test_bug_82_nothing_of_another_user_is_taken",
    ),
    Bug(
        82,
        PRIVATE,
        "status.st_uid != os.geteuid() and (last or status.st_uid != 0)",
        "False",
        "tests/tensor/kernels/test_built.py::test_bug_82_nothing_of_another_user_is_taken",
    ),
    Bug(
        82,
        PRIVATE,
        'getattr(os, "O_NOFOLLOW", 0)',
        "0",
        "tests/tensor/kernels/test_built.py::"
        "test_bug_82_a_planted_library_is_not_loaded[file a symbolic link, by the user]",
    ),
    Bug(
        82,
        PRIVATE,
        "Path(os.path.realpath(wanted.parent)) / wanted.name",
        "Path(os.path.realpath(wanted))",
        "tests/tensor/kernels/test_built.py::"
        "test_bug_82_a_planted_library_is_not_loaded[folder a symbolic link, by the user]",
    ),
    Bug(
        82,
        FILE,
        "if os.path.isabs(base):",
        "if base:",
        "tests/tensor/kernels/test_built.py::"
        "test_bug_82_a_planted_library_is_not_loaded[relative XDG_CACHE_HOME, by the user]",
    ),
    Bug(
        82,
        FILE,
        'if path.stem == f"{name}-{_checksum(descriptor)}":',
        "if True:",
        "tests/tensor/kernels/test_built.py::test_bug_82_a_broken_cache[cut after 9/18]",
    ),
    Bug(
        82,
        FILE,
        "_hash(file.read(LARGEST))",
        "_hash(file.read(4096))",
        "tests/tensor/kernels/test_built.py::test_bug_82_every_byte_of_a_library_counts",
    ),
    Bug(
        82,
        PRIVATE,
        'getattr(os, "O_NONBLOCK", 0)',
        "0",
        "tests/tensor/kernels/test_built.py::test_bug_82_a_broken_cache[a FIFO]",
    ),
    Bug(
        82,
        PRIVATE,
        "stat.S_ISREG(status.st_mode) and status.st_uid",
        "status.st_uid",
        "tests/tensor/kernels/test_built.py::test_bug_82_only_regular_files_are_read",
    ),
    Bug(
        82,
        LOAD,
        "(OSError, AttributeError) as error",
        "OSError as error",
        "tests/tensor/kernels/test_built.py::"
        "test_bug_82_a_broken_cache[without symbols, checksum right]",
    ),
    # turned off for ever
    Bug(
        82,
        LOAD,
        "            path.unlink()\n",
        "            pass\n",
        "tests/tensor/kernels/test_built.py::"
        "test_bug_82_a_broken_cache[without symbols, checksum right]",
    ),
    Bug(
        82,
        FILE,
        "with alone(folder, PATIENCE):",
        "with suppress():",
        "tests/tensor/kernels/test_built.py::test_bug_82_builders_at_once_build_once",
    ),
    Bug(
        82,
        FILE,
        "return _intact(folder, made.name) or _build(made, folder)",
        "return _build(made, folder)",
        "tests/tensor/kernels/test_built.py::test_bug_82_builders_at_once_build_once",
    ),
    Bug(
        82,
        FILE,
        "file.chmod(0o600)",
        "file.stat()",
        "tests/tensor/kernels/test_built.py::test_folders_and_files_are_made_for_this_user_alone",
    ),
    Bug(
        82,
        FILE,
        "messages.read(HEARD)",
        "messages.read()",
        (
            "tests/tensor/kernels/test_built.py::"
            "test_a_compiler_that_talks_without_end_costs_no_memory"
        ),
    ),
    Bug(
        82,
        FILE,
        "c if c.isprintable() else",
        "c if True else",
        "tests/tensor/kernels/test_built.py::test_what_a_compiler_says_is_short_and_harmless",
    ),
    Bug(
        72,
        LOAD,
        "    with _loading:\n        return _trouble()",
        "    return _trouble()",
        "tests/tensor/kernels/test_built.py::test_bug_72_threads_at_once_load_one_library",
    ),
    Bug(
        72,
        LOAD,
        "@functools.cache\ndef _trouble()",
        "def _trouble()",
        "tests/tensor/kernels/test_built.py::test_bug_72_threads_at_once_load_one_library",
    ),
    Bug(
        72,
        "tensor/kernels/cpu/product.c",
        "if (!prepared++) pthread_atfork",
        "pthread_atfork",
        "tests/tensor/kernels/test_built.py::test_bug_72_a_second_load_registers_nothing_for_forks",
    ),
]
