"""What a thread saves while a GPU trains on: of another step, two at a time, or with an error that
nobody hears.
"""

from __future__ import annotations

from tests.zoo.bug import Bug

LOOP, THREAD = "tinygpt/training/loop.py", "tinygpt/training/meanwhile.py"
TESTS = "tests/tinygpt/training/test_meanwhile.py::test_"
COPIES = TESTS + "copies_of_a_gpu"

ZOO = [
    # the arrays themselves, over which later steps write
    Bug(97, LOOP, "content._replace(learning=learning, moments=moments))", "content)",
        TESTS + "a_thread_writes_what_was_there_when_it_was_asked"),
    # each save that is slower than the steps between two leaves one more copy in memory
    Bug(97, LOOP, "self.meanwhile.wait()  # one copy of the weights and moments at a time", "pass",
        TESTS + "steps_are_taken_while_a_checkpoint_is_written"),
    # the training waits for each checkpoint
    Bug(97, LOOP, "                    self.begin_save()\n", "                    self.save()\n",
        TESTS + "steps_are_taken_while_a_checkpoint_is_written"),
    # an error of the disk is heard at the next checkpoint, or never
    Bug(97, LOOP, "                self.meanwhile.look()\n", "",
        TESTS + "an_error_of_the_thread_ends_the_training"),
    Bug(97, LOOP, "                written.result()\n            except InputError:",
        "                pass\n            except InputError:",
        TESTS + "an_error_of_the_thread_ends_the_training"),
    # a file system that refuses a small copy costs the training
    Bug(97, LOOP, "except (OSError, OverflowError) as error:", "except OverflowError as error:",
        TESTS + "a_snapshot_that_cannot_be_written_ends_no_training"),
    # a folder that was renamed meanwhile has no checkpoint of that step
    Bug(97, LOOP, "                self.write(content, copied)\n", "                pass\n",
        TESTS + "a_folder_that_is_renamed_while_the_thread_writes"),
    Bug(97, LOOP, "                if self.owner.stays():\n                    raise\n",
        "                raise\n", TESTS + "a_folder_that_is_renamed_while_the_thread_writes"),
    # nobody hears of what was done last
    Bug(97, THREAD, "self.wait()\n        finally:", "pass\n        finally:",
        TESTS + "the_error_that_came_first_counts"),
    # nor of what was awaited when Ctrl-C came
    Bug(97, THREAD,
        "            self._under_way[0][0].exception()\n            self.look()\n",
        "            future, then = self._under_way.pop(0)\n"
        "            future.exception()\n            then(future)\n",
        TESTS + "a_wait_that_is_interrupted_forgets_nothing"),
    # a full disk hides the error that ended the training
    Bug(97, THREAD, "suppress(*[Exception] * (kind is not None))", "suppress()",
        TESTS + "the_error_that_came_first_counts"),
    # and a training that ends well hides a full disk
    Bug(97, THREAD, "suppress(*[Exception] * (kind is not None))", "suppress(Exception)",
        TESTS + "the_error_that_came_first_counts"),
    # what an end begins is never ended
    Bug(97, THREAD,
        "            self._under_way[0][0].exception()\n            self.look()\n",
        "            for future, then in self._under_way[:]:\n                future.exception()\n"
        "                then(future)\n            self._under_way.clear()\n",
        TESTS + "work_is_done_in_order_and_ended_here"),
    # on a CPU a thread takes the cores that train
    Bug(97, THREAD, '        if self.device != "cpu":\n', "        if True:\n",
        TESTS + "a_cpu_copies_nothing_and_has_no_thread"),
    # the GPU waits after each batch of a measuring
    Bug(97, "tinygpt/training/measure.py", 'losses.append(objective(model, x, y, "sum"))',
        'losses.append(float(objective(model, x, y, "sum")))',
        "tests/tinygpt/training/test_measure.py::"
        "test_no_loss_is_read_before_the_last_batch_was_asked_for"),
    # the memory under an array, not what the array shows
    Bug(97, "tensor/memory/pinned.py", "cupy().ascontiguousarray(array).data", "array.data", COPIES,
        "cuda"),
    # memory goes to the next owner before the GPU has read it
    Bug(97, "tensor/memory/pinned.py", "self.event.synchronize()", "pass",
        "tests/tensor/memory/test_pinned.py::test_an_array_keeps_the_memory_and_the_last_one_waits"),
    Bug(97, "tensor/memory/pinned.py", "self.event.synchronize()", "pass",
        "tests/tinygpt/training/test_captured.py::test_inputs_stay_until_the_gpu_has_read_them",
        "cuda"),
    # read before the GPU has written it
    Bug(97, THREAD, "        self.moment.wait()\n", "", TESTS + "copies_are_awaited"),
]  # fmt: skip
