"""Bugs of classifiers: where a class is read, what its number is, what is kept back."""

from __future__ import annotations

from tests.zoo.bug import Bug

FILE, EVAL = "tinygpt/data/labels.py", "tinygpt/commands/eval.py"
HEADS = "tests/tinygpt/model/test_heads.py::"
TESTS = "tests/tinygpt/data/test_labels.py::"
COMMANDS = "tests/tinygpt/commands/test_classify.py::"
KEPT = TESTS + "test_each_label_is_kept_back_in_its_share"

ZOO = [
    # the hidden state of padding is read
    Bug(97, FILE, "else lengths - 1", "else np.full_like(lengths, x.shape[1] - 1)",
        HEADS + "test_padding_does_not_count"),
    # a BERT's class is read at the last token
    Bug(97, FILE, 'np.zeros_like(lengths) if base == "bert" else lengths - 1', "lengths - 1",
        TESTS + "test_a_bert_says_the_class_at_cls"),
    # all places but one are of the first class
    Bug(97, FILE, "y = np.full(x.shape, IGNORED)", "y = np.zeros(x.shape, np.int64)",
        TESTS + "test_each_text_has_one_target"),
    # the number of a label depends on the order of the texts
    Bug(97, FILE, "sorted({example.label for example in examples})",
        "dict.fromkeys(example.label for example in examples)",
        TESTS + "test_labels_have_the_same_numbers_in_any_order"),
    # what is measured on is learned from
    Bug(97, FILE, "learned = [example for example in examples if example.text not in kept]",
        "learned = examples", KEPT),
    # of a file that is sorted by label, one label is kept back
    Bug(97, FILE, "held_back(_in_turn(examples),",
        "held_back([example.text for example in examples],", KEPT),
    Bug(97, "tinygpt/data/larger.py", "(measure if kept else learn)",
        "(measure if len(measure) < measured else learn)",
        TESTS + "test_stories_and_which_animal_is_larger"),
    # the classes of another file have numbers of their own
    Bug(97, EVAL, "Labelled(labelled, tokenizer, context, base, run.model.labels)",
        "Labelled(labelled, tokenizer, context, base)",
        COMMANDS + "test_what_a_classifier_does_not_do"),
    # labels and answers change places
    Bug(97, "tinygpt/training/measure.py", "np.add.at(table, (y[places], answers), 1)",
        "np.add.at(table, (answers, y[places]), 1)", COMMANDS + "test_a_run_that_classifies[gpt]"),
    # the class of a sample is read where none was learned
    Bug(97, "tinygpt/commands/classes.py", ".numpy()[0, places[0]]", ".numpy()[0, 0]",
        COMMANDS + "test_a_run_that_classifies[gpt]"),
]  # fmt: skip
