# %% [markdown]
# # The four stages on one page: from a text to a model that answers well
#
#     1. pretraining     -ln p(next token)                a text                it goes on
#     2. fine-tuning     -ln p(answer)                    questions, answers    it answers
#     3. reward model    -ln sigmoid(r_better - r_worse)  pairs of answers      it judges
#     4. PPO             E[r] - beta KL(p, q)             questions alone       it answers well
#
# This is how InstructGPT was made (Ouyang et al. 2022), in a world of eight animals. A tiny GPT
# goes through all four stages in seconds, with the parts that `tinygpt train`, `finetune`, `reward`
# and `align` use. After each stage it gets the same prompt.

# %%
import numpy as np
from threadpoolctl import threadpool_limits

from tensor.random import Generator
from tinygpt import GPT, GPTConfig, SampleConfig, SpecialTokenizer, TrainConfig, WordTokenizer
from tinygpt.config import AlignConfig, FinetuneConfig, GPTClassifierConfig, RewardConfig
from tinygpt.data.instructions import Example, Instructions, end_of, prompt_of
from tinygpt.data.preferences import Preference, Preferences, after_prompts
from tinygpt.data.windows import Windows
from tinygpt.generation.answers import continued
from tinygpt.ids import CHAT_TOKENS
from tinygpt.model.aligned import Aligned
from tinygpt.model.heads import GPTClassifier, with_fresh_head
from tinygpt.training.measure import better_p
from tinygpt.training.objectives.preferences import reward_loss, scores_of
from tinygpt.training.ppo import ppo
from tinygpt.training.rollouts import standardise
from tinygpt.training.step import optimizer_of, train

threadpool_limits(1, user_api="blas")  # matrix products this small are slower on several threads

# %% [markdown]
# ## The world, and its truth
#
# Each animal has a sound. The text of the world tells the sounds, or it asks for them, line after
# line, as a page of exam questions does. A good answer is right and kind. So the true score is 1
# for a right answer with thanks, 0.5 for a right answer that is rude, and 0 for all else. Of 48
# questions, 8 are kept back: after pretraining no stage learns from them.

# %%
SOUNDS = {"cow": "moo", "cat": "meow", "dog": "woof", "pig": "oink"}
SOUNDS |= {"duck": "quack", "lamb": "baa", "owl": "hoot", "bee": "buzz"}
LOOKS = "big", "small", "old", "young", "black", "white"
KIND, RUDE = "Thank you.", "So what."
draws = np.random.default_rng(0)


def question_of(look, animal):
    return f"What does the {look} {animal} say?"


def true_score(reply, animal):
    right = SOUNDS[animal]
    return {f"{right}. {KIND}": 1.0, f"{right}. {RUDE}": 0.5}.get(reply, 0.0)


def written_lines(count):
    """The text: six lines that tell, or six lines that ask."""
    lines = []
    for _ in range(count):
        asks = draws.random() < 0.5
        for _ in range(6):
            look, animal = draws.choice(LOOKS), draws.choice(list(SOUNDS))
            told = f"The {look} {animal} says {SOUNDS[animal]}."
            lines.append(question_of(look, animal) if asks else told)
    return "".join(line + "\n" for line in lines)


animals = list(SOUNDS)
asked = [(question_of(look, animal), animal) for look in LOOKS for animal in animals]
held = [asked[i] for i in range(48) if (i // 8 + i % 8) % 6 == 0]  # each animal once
known = [each for each in asked if each not in held]
text = written_lines(200)
tokenizer = SpecialTokenizer(WordTokenizer(f"{text} {KIND} {RUDE}"), CHAT_TOKENS)
END = end_of(tokenizer)
print(*text.splitlines()[:7], "...", sep="\n")
assert sorted(animal for _, animal in held) == sorted(animals)

# %% [markdown]
# ## Stage 1: pretraining
#
# The model predicts each next token of the text. Nobody marked anything in it.

# %%
CONTEXT = 32
model = GPT(GPTConfig(tokenizer.size, CONTEXT, width=32, heads=4, layers=2), generator=Generator(0))
windows = Windows(tokenizer.encode(text), CONTEXT)
choices = TrainConfig(steps=300, optimizer="muon", muon_lr=0.03)
losses = [record.loss for record in train(model, windows, choices)]
print(f"pretraining: loss {losses[0]:.2f}, at the end {losses[-1]:.2f}")


def replies(model, prompts, length=10):
    """One drawn reply to each prompt, as text."""
    model.eval()
    written = continued(model, prompts, SampleConfig(length=length), END)
    return [tokenizer.decode(ids) for ids in written]


def bare(question):
    """A prompt without special tokens, which the pretrained model does not know."""
    return tokenizer.encode(question + "\n")


def chat(question):
    return prompt_of(tokenizer, question)


def mean_true_score(model, asking=chat):
    """Of 25 replies to each question that was kept back."""
    questions = held * 25
    answered = replies(model, [asking(question) for question, _ in questions])
    pairs = zip(answered, questions, strict=True)
    return np.mean([true_score(reply, animal) for reply, (_, animal) in pairs])


question, animal = held[0]
written = replies(model, [bare(question)] * 3, length=24)
page = {"pretrained": (written, mean_true_score(model, bare))}

# %% [markdown]
# ## Stage 2: fine-tuning on answers
#
# People answered: seven of ten right, four of ten kind. The model learns to answer as they did, the
# good and the bad alike (10_after_pretraining/1_loss_on_the_answer_alone.py).


# %%
def persons_reply(animal, right=0.7):
    sound = SOUNDS[animal]
    if draws.random() > right:
        sound = draws.choice([other for other in SOUNDS.values() if other != sound])
    return f"{sound}. {KIND if draws.random() < 0.4 else RUDE}"


examples = [Example(question, persons_reply(animal)) for question, animal in known * 10]
answers = Instructions(examples, tokenizer, CONTEXT)
choices = FinetuneConfig(steps=200, batch=32, lr=5e-3, optimizer="muon", muon_lr=0.02)
losses = [record.loss for record in train(model, answers, choices)]
print(f"fine-tuning: loss {losses[0]:.2f}, at the end {losses[-1]:.2f}")
page["fine-tuned"] = replies(model, [chat(question)] * 3), mean_true_score(model)

# %% [markdown]
# ## Stage 3: a reward model
#
# The fine-tuned model answered each question twice, and people said which answer is better. The
# reward model starts as a copy of the fine-tuned model. Its head gives one number, the score of a
# reply, at the last token (1_bradley_and_terry.py).


# %%
def compared(questions, count):
    """Pairs of drawn replies to a question, of those that are not equally good."""
    rows = draws.integers(len(questions), size=count)
    prompts = [chat(questions[row][0]) for row in rows for _ in range(2)]
    drawn, pairs = replies(model, prompts), []
    for row, one, two in zip(rows, drawn[::2], drawn[1::2], strict=True):
        question, animal = questions[row]
        difference = true_score(one, animal) - true_score(two, animal)
        if difference:
            better, worse = (one, two) if difference > 0 else (two, one)
            pairs.append(Preference(question, better, worse))
    return Preferences(pairs, tokenizer, CONTEXT)


pairs, held_pairs = compared(known, 1000), compared(held, 300)
config = GPTClassifierConfig(**vars(model.config), labels=("reward",))
judge = GPTClassifier(config, draw=False)
judge.load_state_dict(with_fresh_head(model.state_dict(), GPTClassifier, config, seed=0))
choices = RewardConfig(steps=100, batch=32, lr=3e-3, optimizer="muon", muon_lr=0.02)
losses = [record.loss for record in train(judge, pairs, choices, objective=reward_loss)]
right = (better_p(judge, held_pairs, reward_loss) > 0.5).mean()
print(f"reward model: loss {losses[0]:.2f}, at the end {losses[-1]:.2f};", end=" ")
print(f"right about {right:.1%} of held-out pairs")
assert right > 0.9


def judged(texts):
    """The score of each reply to the prompt."""
    judge.eval()
    ids = [(chat(question), [*tokenizer.encode(reply), END]) for reply in texts]
    return scores_of(judge, *after_prompts(ids)).detach().numpy()


sound = SOUNDS[animal]
for reply in (f"{sound}. {KIND}", f"{sound}. {RUDE}", f"buzz. {KIND}", f"buzz. {RUDE}"):
    print(f"{judged([reply])[0]:8.2f}   {reply}")
candidates = replies(model, [chat(question)] * 8)
best = candidates[judged(candidates).argmax()]

# %% [markdown]
# A reward model writes nothing. But it can choose: of eight replies of the fine-tuned model, take
# the one with the highest score (best of n). That is good, and costs eight replies for each answer.
#
# ## Stage 4: PPO
#
# The fine-tuned model is both the policy, which learns, and the reference, which stays. Each step
# draws 64 replies, scores them, and takes four updates (3_ppos_clip.py). Scores are known up to a
# constant, so they are standardised first: the reference's replies have mean 0 and spread 1. A nat
# of KL costs 0.2. Without this price the policy would find what the reward model does not know
# (5_without_kl.py).

# %%
aligned = Aligned(model, config)
aligned.reward.load_state_dict(judge.state_dict())
choices = AlignConfig(steps=25, batch=64, lr=2e-3, length=10, kl=0.2, epochs=2, minibatches=2)
# PPO reads the prompts alone, and no reply of a pair
prompts = [Preference(question, "yes", "no") for question, _ in known]
questions = Preferences(prompts, tokenizer, CONTEXT)
standardise(aligned, questions.prompts, END, choices.length)
optimizer = optimizer_of(aligned, choices)
print("\nPPO step   reward      KL   entropy")
for record in ppo(aligned, questions, choices, optimizer):
    if record.step in (1, 5, 10, 15, 20, 25):
        numbers = record.numbers
        print(f"{record.step:8} {numbers['reward']:8.2f} {numbers['kl']:7.2f}", end="")
        print(f" {numbers['entropy']:9.2f}")
page["aligned"] = replies(model, [chat(question)] * 3), mean_true_score(model)

# %% [markdown]
# ## The page
#
# The prompt is one of those that were kept back. The pretrained model gets the bare question, and
# asks more questions, as its text did. The mean true score is about all questions kept back.

# %%
print(f"\n{question}")
for stage, (written, score) in page.items():
    print(f"\n{stage}: mean true score {score:.2f}")
    for reply in written:
        print("    " + reply.strip().replace("\n", " / "))
    if stage == "fine-tuned":
        print(f"\nthe reward model's choice of 8 such replies\n    {best}")
base, tuned, after = (score for _, score in page.values())
assert all("What does the" in reply for reply in page["pretrained"][0])
assert best == f"{sound}. {KIND}"
assert base < 0.05 < 0.3 < tuned < 0.7
assert after > tuned + (1 - tuned) / 2, "at least half of what was possible"
assert record.numbers["kl"] < 10
