"""One module a command, each with `arguments(parser)` and `run(options) -> exit code`; imported
only when it is the one asked for.
"""

from __future__ import annotations

# name -> the line in `tinygpt --help`
COMMANDS = {
    "train": "train a GPT, on a story that comes with it or on your text",
    "finetune": "teach a trained model to answer, or to classify texts",
    "reward": "teach a fine-tuned GPT which of two replies is better",
    "align": "let a fine-tuned GPT learn to write better replies: PPO, DPO",
    "merge": "make a plain run of a run with adapters (LoRA)",
    "tokenize": "make the tokens of a text beforehand, however large it is",
    "sample": "let a trained GPT continue a text",
    "chat": "talk with a fine-tuned GPT in the terminal",
    "embed": "the vectors of texts, by a trained BERT",
    "look": "see what a trained model makes of a text, in a page or pictures",
    "step": "step through a trained model op by op, forward and backward",
    "eval": "measure a trained GPT on a text",
    "inspect": "what a trained model is made of: how many parameters, and where",
    "doctor": "what is here to train with, and which kernels will run",
    "plan": "what a training will take: memory, speed, time",
    "plot": "the losses of several trainings in one picture",
    "verify": "prove that cache and resuming change nothing in a run",
    "import-gpt2": "make a run of a GPT-2 that Hugging Face stores",
    "export-gpt2": "write a run as a GPT-2 of Hugging Face",
}
