"""Bugs of reading GPT-2's weights: all shapes fit, and the model is another."""

from __future__ import annotations

from tests.zoo.bug import Bug

TESTS = "tests/tinygpt/runs/test_gpt2.py::"
LAYERS = TESTS + "test_bug_61_each_layer_gives_what_gpt2_gives"
TAKEN = "        state[ours] = turned(theirs, array)\n"

ZOO = [
    Bug(
        row=61,  # their Conv1D taken for a Linear: the square projection lies on its side
        file="tinygpt/runs/gpt2.py",
        old="    return array.T if theirs == HEAD else array\n",
        new=(
            "    return array.T if theirs == HEAD or "
            'theirs.endswith("attn.c_proj.weight") else array\n'
        ),
        test=LAYERS + "[different]",
    ),
    Bug(
        row=61,  # the head, which is a Linear, taken for a Conv1D
        file="tinygpt/runs/gpt2.py",
        old="    return array.T if theirs == HEAD else array\n",
        new="    return array\n",
        test=TESTS + "test_bug_61_a_head_of_its_own[square]",
    ),
    Bug(
        row=61,  # q, k, v in another order
        file="tinygpt/runs/gpt2.py",
        old=TAKEN,
        new=(
            "        state[ours] = np.roll(array, array.shape[-1] // 3, axis=-1) if "
            '"c_attn" in theirs else turned(theirs, array)\n'
        ),
        test=LAYERS + "[different]",
    ),
    Bug(
        row=61,  # the tables of tokens and of positions, one for the other
        file="tinygpt/runs/gpt2.py",
        old=TAKEN,
        new=(
            '        state[ours] = turned(theirs, found[{"wte.weight": "wpe.weight", '
            '"wpe.weight": "wte.weight"}.get(theirs, theirs)])\n'
        ),
        test=LAYERS + "[square]",
    ),
    Bug(
        row=61,  # the table of positions cut
        file="tinygpt/runs/gpt2.py",
        old=TAKEN,
        new=(
            "        state[ours] = np.where(np.arange(len(array))[:, None] < 8, array, 0) "
            'if theirs == "wpe.weight" else turned(theirs, array)\n'
        ),
        test=LAYERS + "[different]",
    ),
    Bug(
        row=61,  # the first norm of each block for both
        file="tinygpt/runs/gpt2.py",
        old=TAKEN,
        new='        state[ours] = turned(theirs, found[theirs.replace("ln_2", "ln_1")])\n',
        test=LAYERS + "[different]",
    ),
    Bug(
        row=61,  # a bias left at zero
        file="tinygpt/runs/gpt2.py",
        old=TAKEN,
        new=(
            '        state[ours] = array * 0 if theirs.endswith("attn.c_attn.bias") '
            "else turned(theirs, array)\n"
        ),
        test=LAYERS + "[different]",
    ),
    Bug(
        row=61,  # q, k and v have a bias too, which is no mask
        file="tinygpt/runs/gpt2.py",
        old=r"attn\.(masked_)?bias",
        new=r"attn\..*bias",
        test=TESTS + "test_bug_61_prefix_and_masks[transformer.]",
    ),
    Bug(
        row=61,  # masks taken for weights
        file="tinygpt/runs/gpt2.py",
        old="return None if BUFFER.fullmatch(name) else name",
        new="return name",
        test=TESTS + "test_bug_61_prefix_and_masks[transformer.]",
    ),
    Bug(
        row=61,  # no prefix known
        file="tinygpt/runs/gpt2.py",
        old='PREFIXES.sub("", name, count=1)',
        new="name",
        test=TESTS + "test_bug_61_prefix_and_masks[transformer.]",
    ),
    Bug(
        row=61,  # a prefix taken for granted
        file="tinygpt/runs/gpt2.py",
        old='PREFIXES.sub("", name, count=1)',
        new="name[len(PREFIX) :]",
        test=TESTS + "test_bug_61_prefix_and_masks[bare]",
    ),
    Bug(
        row=61,  # on the way back the head stays on its side: square, it fits all the same
        file="tinygpt/runs/gpt2.py",
        old="turned(theirs, state[ours].array)",
        new="state[ours].array",
        test=TESTS + "test_bug_61_what_is_written[untied-square]",
    ),
    Bug(
        # written without the prefix: their GPT2LMHeadModel finds nothing and draws its weights
        row=61,
        file="tinygpt/runs/gpt2.py",
        old="PREFIX * (theirs != HEAD) + theirs: turned(",
        new="theirs: turned(",
        test=TESTS + "test_bug_61_what_is_written",
    ),
    Bug(
        row=61,  # a head of its own is said to be the table of tokens
        file="tinygpt/runs/families.py",
        old="        if keys is None or content.get(key, usual) != getattr(config, name):\n",
        new='        if key != "tie_word_embeddings":\n',
        test=TESTS + "test_bug_61_what_is_written",
    ),
]
