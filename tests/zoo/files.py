"""Bugs of reading files: what is no file, too large, not what it should be, or cannot be read."""

from __future__ import annotations

from tests.zoo.bug import Bug

FILE = "tinygpt/files.py"
FILES, ODD, PLOT = (
    "tests/tinygpt/test_files.py::",
    "tests/tinygpt/commands/test_odd_files.py::",
    "tests/tinygpt/commands/test_plot.py::",
)
TOKENS = "tests/tinygpt/data/test_token_files.py::"
GPT2, PLAN = (
    "tests/tinygpt/commands/test_gpt2_commands.py::",
    "tests/tinygpt/commands/test_plan.py::",
)

ZOO = [
    Bug(
        row=86,  # a device is read until memory ends
        file=FILE,
        old="        if not stat.S_ISREG(mode):\n",
        new="        if False:\n",
        test=FILES + "test_bug_86_only_regular_files_are_opened",
    ),
    Bug(
        row=86,  # a FIFO waits for a writer
        file=FILE,
        old=' | getattr(os, "O_NONBLOCK", 0)',
        new="",
        test=ODD + "test_bug_86_no_regular_file[fifo-runs/story-1/tokenizer.json-sample]",
    ),
    Bug(
        row=86,  # a text is opened without asking what it is
        file="tinygpt/data/reading.py",
        old="        return open_regular(path)\n",
        new='        return open(path, "rb")\n',
        test=ODD + "test_bug_86_no_regular_file[fifo-text.txt-train]",
    ),
    Bug(
        row=86,  # tokens are mapped without asking what they are
        file="tinygpt/data/token_files.py",
        old="open_regular(path) as file:",
        new='open(path, "rb") as file:',
        test=ODD + "test_bug_86_no_regular_file[fifo-made/tokens.bin-train]",
    ),
    Bug(
        row=86,  # weights are opened without asking what they are
        file="tinygpt/runs/tensors.py",
        old="with open_regular(path) as file:",
        new='with open(path, "rb") as file:',
        test=ODD + "test_bug_86_no_regular_file[fifo-gpt/model.safetensors-import-gpt2]",
    ),
    Bug(
        row=86,  # metrics are opened without asking what they are
        file="tinygpt/runs/metrics.py",
        old="    with open_regular(path) as file:\n        for line",
        new='    with open(path, "rb") as file:\n        for line',
        test=ODD + "test_bug_86_no_regular_file[fifo-runs/story-1/metrics.jsonl-plot]",
    ),
    Bug(
        row=86,  # as large as a file is, so much is read
        file=FILE,
        old="        if size > most:\n",
        new="        if False:\n",
        test=FILES + "test_bug_86_sizes_are_bounded",
    ),
    Bug(
        row=86,  # what is too large to be read again is written
        file=FILE,
        old=(
            '        raise InputError(f"{shown(path)} cannot hold this ({reason(error)})") '
            "from None\n"
            "    if size > most:\n"
        ),
        new=(
            '        raise InputError(f"{shown(path)} cannot hold this ({reason(error)})") '
            "from None\n"
            "    if False:\n"
        ),
        test=FILES + "test_bug_86_sizes_are_bounded",
    ),
    Bug(
        row=86,  # the content is built before its type is looked at
        file=FILE,
        old="        value: T = _decoder(kind).decode(data)",
        new="        value: T = msgspec.convert(msgspec.json.decode(data), kind)",
        test=FILES + "test_bug_86_a_wrong_type_takes_no_memory",
    ),
    Bug(
        row=86,  # nested deeper than Python goes
        file=FILE,
        old="    except (ValueError, RecursionError) as error:  # msgspec's",
        new="    except ValueError as error:  # msgspec's",
        test=FILES + "test_bug_86_what_does_not_fit_is_told_in_short",
    ),
    Bug(
        row=86,  # of two entries with one name the last is taken
        file=FILE,
        old="json.loads(data, object_pairs_hook=_once)",
        new="json.loads(data)",
        test=FILES + "test_bug_86_what_does_not_fit_is_told_in_short",
    ),
    Bug(
        row=86,  # a choice of a later version is passed over
        file=FILE,
        old="            yield name\n",
        new="            pass\n",
        test=FILES + "test_bug_86_what_does_not_fit_is_told_in_short",
    ),
    Bug(
        row=86,  # half a surrogate pair is found when the file is half made
        file=FILE,
        old=(
            "    except (ValueError, RecursionError) as error:\n"
            '        raise InputError(f"{shown(path)} cannot hold'
        ),
        new=(
            "    except RecursionError as error:\n"
            '        raise InputError(f"{shown(path)} cannot hold'
        ),
        test=FILES + "test_bug_86_what_could_not_be_read_again_is_not_written",
    ),
    Bug(
        row=86,  # messages as long as what is in the file
        file=FILE,
        old="    return line if len(line) <= LONGEST else",
        new="    return shown(what) if len(line) <= LONGEST else shown(what) if what else",
        test=FILES + "test_bug_86_messages_are_short_and_safe",
    ),
    Bug(
        row=86,  # not every OSError knows its file
        file=FILE,
        old='        raise InputError(f"{shown(path)} cannot be read ({reason(error)})',
        new=(
            '        raise InputError(f"{shown(Path(error.filename))} cannot be read '
            "({reason(error)})"
        ),
        test=ODD
        + "test_bug_86_a_read_error_is_told_with_the_file[runs/story-1/metrics.jsonl-plot]",
    ),
    Bug(
        row=86,  # a read error in the middle of a file
        file="tinygpt/runs/metrics.py",
        old="    with reading(path, advice):\n",
        new="    if True:\n",
        test=PLOT + "test_refuses",
    ),
    Bug(
        row=86,  # a name that JSON cannot hold is found when the folder is made
        file="tinygpt/config/training.py",
        old='value == value.encode("utf-8", "ignore").decode(),',
        new="True,",
        test=ODD + "test_bug_86_names_that_are_no_utf8",
    ),
    Bug(
        row=86,  # a line nested deeper than Python goes
        file="tinygpt/runs/metrics.py",
        old="    except (ValueError, RecursionError):  # msgspec's",
        new="    except ValueError:  # msgspec's",
        test=PLOT + "test_bug_86_a_line_that_does_not_fit_is_left_out",
    ),
    Bug(
        row=86,  # losses whose sums are infinite
        file="tinygpt/runs/metrics.py",
        old="msgspec.Meta(ge=-LARGEST, le=LARGEST)",
        new="msgspec.Meta(ge=-LARGEST)",
        test=PLOT + "test_bug_86_a_line_that_does_not_fit_is_left_out",
    ),
    Bug(
        row=86,  # a hole of zeros is read to its end
        file="tinygpt/runs/metrics.py",
        old="            if len(line) == LINE:\n",
        new="            if False:\n",
        test=PLOT + "test_bug_86_a_line_that_does_not_end_ends_the_file",
    ),
    Bug(
        row=86,  # a header as long as it says
        file="tinygpt/runs/tensors.py",
        old="            if length > HEADER:\n",
        new="            if False:\n",
        test=GPT2 + "test_bug_86_a_header_of_any_size",
    ),
    Bug(
        row=86,  # shapes that NumPy cannot make
        file="tinygpt/runs/tensors.py",
        old=(
            "shape: Annotated[\n"
            "        tuple[Annotated[int, msgspec.Meta(ge=1)], ...], "
            "msgspec.Meta(max_length=8)\n    ]"
        ),
        new="shape: tuple[int, ...]",
        test=GPT2 + "test_bug_86_tensors_that_cannot_be",
    ),
    Bug(
        row=86,  # a value of a config is told whole
        file="tinygpt/runs/families.py",
        old="{key} {brief(json.dumps(value))}{why}",
        new="{key} {json.dumps(value)}{why}",
        test=GPT2 + "test_bug_86_odd_values_are_told_in_short",
    ),
    Bug(
        row=86,  # ids of any size
        file="tinygpt/tokenizers/gpt2_files.py",
        old="Annotated[int, msgspec.Meta(ge=0, le=2**53)]",
        new="int",
        test="tests/tinygpt/tokenizers/test_byte_pair.py::test_bug_86_bad_files",
    ),
    Bug(
        row=86,  # layers of a thousand bytes cost nothing
        file="tinygpt/model/sizes.py",
        old="tensors = 3 + tables + config.layers * block",
        new="tensors = 3 + tables",
        test=PLAN + "test_bug_86_the_smallest_file_of_a_model",
    ),
    Bug(
        row=86,  # a table of any size
        file="tinygpt/model/positions.py",
        old="    if context * width > most:",
        new="    if False:",
        test=PLAN + "test_bug_86_a_table_that_no_file_bounds",
    ),
    Bug(
        row=86,  # a new file is not made: what is there is in its way
        file=FILE,
        old="        temporary.unlink(missing_ok=True)  # may be a link, or a FIFO\n",
        new="",
        test=TOKENS + "test_bug_86_what_is_in_a_half_written_folder_is_not_opened",
    ),
    Bug(
        row=86,  # tokens are written over what is there
        file="tinygpt/data/token_files.py",
        old=(
            "        (folder / IDS).unlink(missing_ok=True)  # may be a link, or a FIFO\n"
            '        with (folder / IDS).open("xb") as file:'
        ),
        new='        with (folder / IDS).open("wb") as file:',
        test=TOKENS + "test_bug_86_what_is_in_a_half_written_folder_is_not_opened",
    ),
    Bug(
        row=86,  # a text is destroyed by its own tokens
        file="tinygpt/commands/tokenize.py",
        old="    token_files.check_apart(out, source.files)\n",
        new="",
        test=TOKENS + "test_bug_86_a_text_in_the_folder_of_its_tokens",
    ),
    Bug(
        row=86,  # the removal ends at a folder
        file="tinygpt/data/token_files.py",
        old=" or any(entry.is_dir() for entry in entries)",
        new="",
        test=TOKENS + "test_bug_86_a_folder_where_a_file_goes",
    ),
    Bug(
        row=86,  # what matplotlib says of its settings ends in a traceback
        file=FILE,
        old='    except Exception as error:\n        raise InputError(\n            f"the picture',
        new='    except OSError as error:\n        raise InputError(\n            f"the picture',
        test=PLOT + "test_bug_86_settings_with_which_matplotlib_does_not_draw",
    ),
    Bug(
        row=86,  # and has lines of its own
        file=FILE,
        old='    logging.getLogger("matplotlib").addHandler(SILENT)\n',
        new="",
        test=PLOT + "test_bug_86_settings_with_which_matplotlib_does_not_draw",
    ),
    Bug(
        row=86,  # a picture that cannot be drawn ends a training
        file="tinygpt/training/loop.py",
        old="            except InputError as error:\n                if self.drawn:\n",
        new="            except FileNotFoundError as error:\n                if self.drawn:\n",
        test="tests/tinygpt/runs/test_curves.py::"
        "test_bug_86_a_picture_that_cannot_be_drawn_ends_no_training",
    ),
]
