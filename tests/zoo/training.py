"""Bugs of training loops."""

from __future__ import annotations

from tests.zoo.bug import Bug

TESTS = "tests/tinygpt/training/test_step.py::"
RESUME = "tests/tinygpt/training/test_resume.py::"
SAME = RESUME + "test_bug_51_a_resumed_run_equals_one_that_never_stopped"
HALF = "tests/tinygpt/training/test_half_precision.py::"
AGAIN = "tests/tensor/autograd/test_recompute.py::"
OPTIMIZER, SCALING, RECOMPUTE = (
    "tensor/optim/optimizer.py",
    "tensor/optim/scaling.py",
    "tensor/autograd/recompute.py",
)
OF_LOSS = "        for x, y in batches(model, windows, batch, rows):\n"

ZOO = [
    Bug(
        row=42,  # a tied table is two parameters to the optimiser
        file="tensor/nn/module.py",
        old="        if id(tensor) not in seen:\n",
        new="        if True:\n",
        test=TESTS + "test_bug_42_tied_table_decays_once",
    ),
    Bug(
        row=42,  # gains and biases decay too
        file="tensor/nn/packing.py",
        old='return "decayed" if parameter.ndim >= 2 else "not decayed"',
        new='return "decayed" if parameter.ndim >= 1 else "not decayed"',
        test=TESTS + "test_bug_42_tied_table_decays_once",
    ),
    Bug(
        row=43,  # a NaN norm goes into the weights and stays in AdamW's means
        file="tensor/optim/clipping.py",
        old="    if math.isfinite(norm):\n        optimizer.step()",
        new="    optimizer.step()",
        test=TESTS + "test_bug_43_non_finite_step_changes_nothing",
    ),
    Bug(
        row=43,  # skipped, and nobody is told
        file="tinygpt/training/step.py",
        old="return not math.isfinite(self.gradient_norm)",
        new="return False",
        test=TESTS + "test_bug_43_non_finite_step_changes_nothing",
    ),
    Bug(
        row=46,  # gradients of all steps so far are added up
        file="tinygpt/training/step.py",
        old="    optimizer.zero_grad()\n",
        new="",
        test=TESTS + "test_bug_46_gradients_are_those_of_one_pass",
    ),
    Bug(
        row=46,  # forgotten only after the first step: its gradients carry what was there before
        file="tinygpt/training/step.py",
        old="    optimizer.zero_grad()\n",
        new=(
            "    if optimizer.counts[next(iter(optimizer.counts))]:\n"
            "        optimizer.zero_grad()\n"
        ),
        test=TESTS + "test_bug_46_gradients_are_those_of_one_pass",
    ),
    Bug(
        row=46,  # forgotten between backward and the update: nothing is learned
        file="tinygpt/training/step.py",
        old="        losses.append(loss.detach())\n",
        new="        losses.append(loss.detach())\n        optimizer.zero_grad()\n",
        test=TESTS + "test_bug_46_gradients_are_those_of_one_pass",
    ),
    Bug(
        row=47,
        file="tinygpt/training/measure.py",
        old="    with no_grad(), evaluating():\n" + OF_LOSS,
        new="    with no_grad():\n" + OF_LOSS,
        test=TESTS + "test_bug_47_measuring_is_without_dropout",
    ),
    Bug(
        row=47,
        file="tinygpt/training/measure.py",
        old="    with no_grad(), evaluating():\n" + OF_LOSS,
        new="    model.eval()\n    with no_grad():\n" + OF_LOSS,
        test=TESTS + "test_bug_47_measuring_is_without_dropout",
    ),
    Bug(
        row=47,
        file="tinygpt/training/step.py",
        old="    model.train()\n",
        new="",
        test=TESTS + "test_bug_47_training_is_with_dropout",
    ),
    # -- row 44: a mean of means
    Bug(
        row=44,
        file="tinygpt/training/step.py",
        old='objective(model, x[part], y[part], "sum") * (1 / targets)',
        new='objective(model, x[part], y[part], "mean") * (1 / accumulation)',
        test=RESUME + "test_bug_44_accumulation_equals_one_large_batch",
    ),
    Bug(
        row=44,  # targets that count for nothing count
        file="tinygpt/training/step.py",
        old="max(int(np.count_nonzero(y != IGNORED)), 1)",
        new="y.size",
        test=RESUME + "test_bug_44_accumulation_equals_one_large_batch",
    ),
    Bug(
        row=44,  # the masks of each part are those of the first
        file="tinygpt/training/step.py",
        old="keyed(key._replace(sample=int(part[0])))",
        new="keyed(key)",
        test=RESUME + "test_bug_44_accumulation_equals_one_large_batch",
    ),
    Bug(
        row=44,  # measuring: the mean of the batches' means
        file="tinygpt/training/measure.py",
        old=(
            '            losses.append(objective(model, x, y, "sum"))\n'
            "            targets += int(np.count_nonzero(y != IGNORED))\n"
        ),
        new=(
            '            losses.append(objective(model, x, y, "mean"))\n            targets += 1\n'
        ),
        test=RESUME + "test_bug_44_measuring_counts_each_target_once",
    ),
    # -- row 45: steps
    Bug(
        row=45,  # the schedule counts parts
        file="tinygpt/training/step.py",
        old="optimizer.lr = learning_rate(step, config)",
        new="optimizer.lr = learning_rate(step * config.accumulation, config)",
        test=RESUME + "test_bug_45_steps_count_updates",
    ),
    Bug(
        row=45,  # an update after each part
        file="tinygpt/training/step.py",
        old="        losses.append(loss.detach())\n",
        new="        losses.append(loss.detach())\n        optimizer.step()\n",
        test=RESUME + "test_bug_45_steps_count_updates",
    ),
    Bug(
        row=45,  # a batch is cut into parts instead of being that many times larger
        file="tinygpt/training/order.py",
        old="rows(step, config.batch * config.accumulation, windows, config.seed)",
        new="rows(step, config.batch, windows, config.seed)",
        test=RESUME + "test_bug_45_steps_count_updates",
    ),
    Bug(
        row=45,  # one off
        file="tinygpt/training/step.py",
        old="        step,\n",
        new="        step + 1,\n",
        test=RESUME + "test_bug_45_table_of_the_trainer",
    ),
    Bug(
        row=45,  # the cosine ends a step early
        file="tinygpt/training/step.py",
        old="        total=config.steps,\n",
        new="        total=config.steps - 1,\n",
        test=RESUME + "test_bug_45_table_of_the_trainer",
    ),
    # -- row 48: 16 bits
    Bug(
        row=48,  # no master weights
        file=OPTIMIZER,
        old='{"master": weights.astype(float32)} if flat.dtype in NARROW else {}',
        new="{}",
        test=HALF + "test_bug_48_small_updates_survive",
    ),
    Bug(
        row=48,  # masters of 16 bits
        file=OPTIMIZER,
        old='{"master": weights.astype(float32)}',
        new='{"master": weights.copy()}',
        test=HALF + "test_bug_48_sixteen_bits_learn_as_float32_does",
    ),
    Bug(
        row=48,  # each update starts from the rounded weights
        file=OPTIMIZER,
        old="            (kernel or rule.func)(exact",
        new="            exact[part] = weights[part]\n            (kernel or rule.func)(exact",
        test=HALF + "test_bug_48_small_updates_survive",
    ),
    Bug(
        row=48,  # Muon too
        file="tensor/optim/muon.py",
        old="            rule(w, self._exact(g, w.dtype), u)\n",
        new=(
            "            w[...] = weights[part].reshape(shape)\n"
            "            rule(w, self._exact(g, w.dtype), u)\n"
        ),
        test=HALF + "test_bug_48_small_updates_survive",
    ),
    Bug(
        row=48,  # the scale never recovers
        file=SCALING,
        old="        elif self.good == self.patience:\n",
        new="        elif False:\n",
        test=HALF + "test_bug_48_the_scale_halves_and_recovers",
    ),
    Bug(
        row=48,  # good steps before an overflow count on after it
        file=SCALING,
        old="self.good = self.good + 1 if fitted else 0",
        new="self.good += fitted",
        test=HALF + "test_bug_48_the_scale_halves_and_recovers",
    ),
    Bug(
        row=48,  # it stays where it overflows
        file=SCALING,
        old="            self.value /= 2\n",
        new="            self.good = 0\n",
        test=HALF + "test_bug_48_an_overflow_is_skipped_and_the_scale_finds_its_size",
    ),
    Bug(
        row=48,  # an overflow is no reason to skip
        file="tensor/optim/clipping.py",
        old="    if math.isfinite(norm):\n",
        new="    if not math.isnan(norm) or scale > 1:\n",
        test=HALF + "test_bug_48_an_overflow_is_skipped_and_the_scale_finds_its_size",
    ),
    Bug(
        row=48,  # unscaled in 16 bits, where the small ones are 0 again
        file=OPTIMIZER,
        old=(
            "        wide = gradients.astype(dtype, copy=False)\n"
            "        return wide if self.loss_scale is None else wide * (1 / "
            "self.loss_scale.value)\n"
        ),
        new="        if self.loss_scale is not None:\n"
        "            gradients = gradients * gradients.dtype.type(1 / "
        "self.loss_scale.value)\n"
        "        return gradients.astype(dtype, copy=False)\n",
        test=HALF + "test_bug_48_gradients_below_float16_arrive",
    ),
    Bug(
        row=48,  # never unscaled: AdamW hardly minds, all else does
        file=OPTIMIZER,
        old="return wide if self.loss_scale is None else wide * (1 / self.loss_scale.value)",
        new="return wide",
        test=HALF + "test_bug_48_gradients_below_float16_arrive",
    ),
    Bug(
        row=43,  # clipped before unscaling
        file="tensor/optim/clipping.py",
        old="clip_gradients(optimizer, limit * scale) / scale",
        new="clip_gradients(optimizer, limit) / scale",
        test=HALF + "test_bug_43_clipping_is_of_the_true_gradient",
    ),
    Bug(
        row=43,  # a norm told as it was scaled
        file="tensor/optim/clipping.py",
        old="clip_gradients(optimizer, limit * scale) / scale",
        new="clip_gradients(optimizer, limit * scale)",
        test=HALF + "test_bug_43_clipping_is_of_the_true_gradient",
    ),
    # -- row 51: a resumed run is another one
    Bug(
        row=51,  # moments start anew
        file="tinygpt/runs/run.py",
        old="    optimizer.load_state_dict({**numbers, ",
        new="    dict({**numbers, ",
        test=SAME,
    ),
    Bug(
        row=51,  # batches start anew
        file="tinygpt/training/step.py",
        old="x, y = windows[rows_of(step, config",
        new="x, y = windows[rows_of(step - first, config",
        test=SAME,
    ),
    Bug(
        row=51,  # dropout's masks start anew
        file="tinygpt/training/step.py",
        old="Key(config.seed, step))",
        new="Key(config.seed, step - first))",
        test=SAME,
    ),
    Bug(
        row=51,  # the schedule starts anew
        file="tinygpt/training/step.py",
        old="optimizer.lr = learning_rate(step, config)",
        new="optimizer.lr = learning_rate(step - first, config)",
        test=SAME,
    ),
    Bug(
        row=51,  # steps are counted anew, so that the means are corrected once more
        file=OPTIMIZER,
        old='self.taken, self.counts = state["taken"], dict(state["counts"])',
        new='self.taken = state["taken"]',
        test=SAME,
    ),
    Bug(
        row=51,  # the weights are the best ones, not the last
        file="tinygpt/runs/run.py",
        old="    model.load_state_dict(arrays[MODEL] | arrays.get(BASE, {}))\n    optimizer",
        new=(
            "    model.load_state_dict(checkpoint.load(run.folder, {BEST: "
            "model.state_dict()})[1][BEST])\n    optimizer"
        ),
        test=SAME,
    ),
    Bug(
        row=51,  # exact weights are rounded by stopping
        file=OPTIMIZER,
        old="            array[...] = move(given[name], device_of(array))\n",
        new=(
            '            if not name.endswith("master"):\n'
            "                array[...] = move(given[name], device_of(array))\n"
        ),
        test=SAME,
    ),
    Bug(
        row=51,  # the loss scale starts anew
        file=OPTIMIZER,
        old='            self.loss_scale.load_state_dict(state["loss_scale"])\n',
        new="            pass\n",
        test=SAME,
    ),
    Bug(
        row=51,  # a later checkpoint passes for the best one
        file="tinygpt/runs/run.py",
        old="if content.state.at_best:",
        new="if content.state.best is not None and content.state.worse == 0:",
        test=RESUME + "test_bug_51_the_best_weights_are_those_that_were_measured",
    ),
    Bug(
        row=51,  # measurings without a better loss are counted anew
        file="tinygpt/runs/run.py",
        old="msgspec.convert(state, Progress, from_attributes=True)",
        new="Progress(state.step, state.loss, state.best, state.best_step)",
        test=RESUME + "test_bug_51_early_stopping_counts_on",
    ),
    Bug(
        row=51,  # steps are noted twice
        file="tinygpt/runs/metrics.py",
        old="        if step:\n            cut(path, step)\n",
        new="",
        test=RESUME + "test_bug_51_what_was_noted_after_the_checkpoint_is_noted_once",
    ),
    # -- row 52: a torn checkpoint, a part of a step
    Bug(
        row=52,  # written over the one that is there
        file="tinygpt/runs/checkpoint.py",
        old="name: write_arrays(_new(folder, name), content)",
        new=(
            "name: (write_arrays(folder / name, content), write_arrays(_new(folder, name), "
            "content))[1]"
        ),
        test=RESUME + "test_bug_52_twenty_kills_while_saving",
    ),
    Bug(
        row=52,  # said to be complete before it is
        file="tinygpt/runs/checkpoint.py",
        old="    try:\n        written =",
        new=(
            "    try:\n"
            "        files.write_json(_new(folder, STATE), asdict(state))\n"
            "        written ="
        ),
        test=RESUME + "test_bug_52_twenty_kills_while_saving",
    ),
    Bug(
        row=52,  # Ctrl-C ends the step under way, and what is saved is from before
        file="tinygpt/training/progress.py",
        old="        self.asked = self.asked or number\n",
        new="        self.asked = self.asked or number\n        raise KeyboardInterrupt\n",
        test=RESUME + "test_bug_52_no_part_of_a_step_is_saved",
    ),
    # -- computing again what was not kept
    Bug(
        row=47,  # other masks in backward than in forward
        file=RECOMPUTE,
        old="self.context.copy().run(self._run, MODE.get().tape)",
        new="self._run(MODE.get().tape)",
        test=AGAIN + "test_bug_47_dropout_masks_are_those_of_forward",
    ),
    Bug(
        row=47,  # the draws go on where forward left them
        file=RECOMPUTE,
        old="        stream.load_state(self.draws)\n",
        new="        stream.load_state(random.default.state())\n",
        test=AGAIN + "test_bug_47_dropout_masks_are_those_of_forward",
    ),
    Bug(
        row=21,  # what the ops inside do not keep may be written unnoticed, and is read again
        file=RECOMPUTE,
        old="        for x in values:\n",
        new="        for x in values[:1]:\n",
        test=(
            "tests/tensor/autograd/test_recompute_refused.py::"
            "test_bug_21_what_it_reads_may_not_be_written"
        ),
    ),
    Bug(
        row=1,  # of a checkpoint's gradients, only those of its inputs are passed on
        file="tensor/autograd/backward.py",
        old="                self.add(root, dy, False)\n",
        new="                self.total[root] = dy, False\n",
        test=AGAIN + "test_bug_01_one_tensor_is_two_outputs",
    ),
]
