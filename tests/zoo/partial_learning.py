"""Bugs of a training in which a part of the model learns: frozen parts, adapters."""

from __future__ import annotations

from tests.zoo.bug import Bug

FREEZING, JOBS = "tinygpt/model/freezing.py", "tinygpt/training/jobs.py"
ADAPTERS = "tinygpt/model/adapters.py"
FROZEN = "tests/tinygpt/model/test_freezing.py::test_what_is_frozen_does_not_move_by_a_bit"
RUN = "tests/tinygpt/commands/test_finetune.py::"
LORA = "tests/tinygpt/model/test_adapters.py::"
MERGED = LORA + "test_merged_adapters_give_the_same_logits"
STAYS = LORA + "test_all_but_the_adapters_stays_bit_for_bit"

ZOO = [
    # one block more is frozen
    Bug(97, FREEZING, "if number < count]", "if number <= count]", FROZEN),
    # a table of tokens learns on
    Bug(97, FREEZING, "if role_of(parameter) == \"table\"]", "if role_of(parameter) == \"head\"]",
        FROZEN),
    # a run that goes on learns what was frozen
    Bug(97, JOBS, "    frozen(model, config)\n    optimizer = optimizer_of(model.train(), config)",
        "    optimizer = optimizer_of(model.train(), config)",
        RUN + "test_frozen_parts_stay_bit_for_bit"),
    # what the adapters add is not scaled; or it is, but not when they are merged
    Bug(97, ADAPTERS, "low = self.scale * tensor.linear", "low = tensor.linear",
        LORA + "test_the_scale_is_alpha_by_rank"),
    Bug(97, ADAPTERS, "self.base + self.scale * (self.A @ self.B)", "self.base + self.A @ self.B",
        MERGED),
    # the other weights learn too
    Bug(97, ADAPTERS, "    model.requires_grad_(False)\n", "", STAYS),
    # the rows of new tokens stand in other places
    Bug(97, ADAPTERS, "[self.base[: self.first], self.new, self.base[after:]]",
        "[self.new, self.base[: self.first], self.base[after:]]", STAYS),
    # the head of a model without a tied one stays as it was
    Bug(97, ADAPTERS, "        model.head.requires_grad_()\n", "        pass\n", STAYS),
    # A and B both start at 0: nothing is ever learned
    Bug(97, "tinygpt/training/starting.py", "    draw(model, Generator(config.seed))\n", "",
        RUN + "test_a_stopped_lora_goes_on_with_the_same_bits"),
    # a flag of fine-tuning is accepted when a run goes on, and does nothing
    Bug(97, JOBS, "fields = [*request.training.__dataclass_fields__, *MODEL_FIELDS]",
        "fields = [*TrainConfig.__dataclass_fields__, *MODEL_FIELDS]",
        RUN + "test_every_command_takes_a_run_with_adapters_as_a_plain_one"),
    # a snapshot without what the adapters add
    Bug(97, "tinygpt/training/loop.py", "in plain_weights(self.job.model).items()",
        "in {k.replace('.base', '.weight'): x for k, x in self.job.model.state_dict().items()"
        " if k.rpartition('.')[2] not in ('A', 'B', 'new')}.items()",
        RUN + "test_every_command_takes_a_run_with_adapters_as_a_plain_one"),
]  # fmt: skip
