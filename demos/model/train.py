"""Train the tiny model: recall and prose in one network, on one CPU thread.

Recipe: repeated random sequences until copying appears, then lookups of digits behind a key;
then, in every step, one recall batch
(a curriculum from two facts to 2,048 tokens, moved on by accuracy) and one prose batch. Matrices
are trained by Muon, embeddings and norms by AdamW. Forward and backward run in bfloat16, the
optimiser on float32 master weights.

Usage: ``python train.py SCRATCH OUT --minutes 50`` (SCRATCH holds ``corpus.jsonl``, OUT the
tokenizer). OUT gets a usable model every few minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path

import torch
from batches import DIGIT, FRAME, NAME, PROSE, Batches, RecallShape
from safetensors.torch import save_file
from tokenizer import BOS, EOS, PAD
from tokenizers import Tokenizer
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM

CONFIG = LlamaConfig(
    architectures=["LlamaForCausalLM"],
    vocab_size=2048,
    hidden_size=256,
    intermediate_size=768,
    num_hidden_layers=5,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=64,
    max_position_embeddings=4096,
    rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
    rms_norm_eps=1e-5,
    tie_word_embeddings=True,
    bos_token_id=BOS,
    eos_token_id=EOS,
    pad_token_id=PAD,
    dtype="bfloat16",
)
GENERATION_CONFIG = {"bos_token_id": BOS, "eos_token_id": EOS, "pad_token_id": PAD}

CURRICULUM = (
    RecallShape(256, (2, 2), (0, 0)),
    RecallShape(256, (4, 4), (0, 0)),
    RecallShape(256, (6, 8), (0, 0)),
    RecallShape(512, (4, 8), (0, 150)),
    RecallShape(512, (4, 8), (0, 300)),
    RecallShape(1024, (4, 8), (100, 750)),
    RecallShape(2048, (4, 10), (200, 1780)),
)
COMPILED_ROWS = {shape.row for shape in CURRICULUM}
FIRST_SHAPE = 2
"""Recall begins with the first three shapes mixed: two facts alone are answered by guessing."""
ADVANCE_AT = 0.85
"""Moving average of exact answers at which the next recall shape begins."""
WARM_UP_AT = 0.93, 0.9, 0.9, 0.9
"""Accuracy that ends each part of the warm-up: copying, then lookups with gaps of 0 to 2."""
LEARNING_RATES = {"muon": 0.02, "adamw": 3e-3}
SETTLED_AT = 0.93
LOSS_WEIGHTS = {DIGIT: 1.0, NAME: 1.0, FRAME: 0.5, PROSE: 1.0}
DECAY_FROM = 0.6
"""Share of the budget after which the learning rates fall to zero."""


class Trainer:
    """A bfloat16 model, its float32 master weights and their optimisers."""

    def __init__(self) -> None:
        self.model = LlamaForCausalLM(CONFIG).bfloat16().train()
        self.working = dict(self.model.named_parameters())
        self.master = {
            name: torch.nn.Parameter(weights.detach().float())
            for name, weights in self.working.items()
        }
        matrices = [
            weights
            for name, weights in self.master.items()
            if weights.ndim == 2 and "embed" not in name
        ]
        others = [
            weights for name, weights in self.master.items() if weights.ndim != 2 or "embed" in name
        ]
        self.optimizers = {
            "muon": torch.optim.Muon(
                matrices, lr=LEARNING_RATES["muon"], momentum=0.95, weight_decay=0.0
            ),
            "adamw": torch.optim.AdamW(
                others, lr=LEARNING_RATES["adamw"], betas=(0.9, 0.95), weight_decay=0.0
            ),
        }
        self.tokens = 0
        self.steps = 0
        self._compiled = torch.compile(self._eager, dynamic=False)

    def _eager(self, ids: torch.Tensor) -> torch.Tensor:
        return self.model.model(input_ids=ids, use_cache=False).last_hidden_state

    def backward(
        self, ids: torch.Tensor, classes: torch.Tensor, choices: torch.Tensor | None = None
    ) -> dict[int, tuple[float, float]]:
        """Add the gradients of a batch; (loss, accuracy) of each weight class in it.

        ``choices`` limits the softmax to these tokens. The accuracy of digits is that of whole
        codes where the batch is a recall batch.
        """
        self.tokens += ids.numel()
        # Compiling pays for the few fixed row lengths, not for the many of the warm-up.
        forward = self._compiled if ids.shape[1] in COMPILED_ROWS else self._eager
        hidden = forward(ids)[:, :-1]
        target_classes = classes[:, 1:]
        chosen = target_classes > 0
        logits = functional.linear(hidden[chosen], self.working["model.embed_tokens.weight"])
        targets, target_classes = ids[:, 1:][chosen], target_classes[chosen]
        if choices is not None:
            excluded = torch.ones(CONFIG.vocab_size, dtype=torch.bool)
            excluded[choices] = False
            logits = logits.masked_fill(excluded, float("-inf"))
        losses = functional.cross_entropy(logits.float(), targets, reduction="none")
        right = logits.detach().argmax(-1) == targets
        report = {}
        total = torch.zeros(())
        for kind, weight in LOSS_WEIGHTS.items():
            members = target_classes == kind
            if members.any():
                loss = losses[members].mean()
                total = total + weight * loss
                hits = right[members]
                if kind == DIGIT and (target_classes == NAME).any():
                    hits = hits.view(-1, 4).all(1)
                report[kind] = (loss.item(), hits.float().mean().item())
        total.backward()
        return report

    def step(self, rate: float) -> None:
        """Apply the gathered gradients with the learning rates scaled by ``rate``."""
        with torch.no_grad():
            for name, weights in self.working.items():
                assert weights.grad is not None
                self.master[name].grad = weights.grad.float()
                weights.grad = None
        torch.nn.utils.clip_grad_norm_(self.master.values(), 1.0)
        for kind, optimizer in self.optimizers.items():
            for group in optimizer.param_groups:
                group["lr"] = LEARNING_RATES[kind] * rate
            optimizer.step()
        with torch.no_grad():
            for name, weights in self.working.items():
                weights.copy_(self.master[name])
        self.steps += 1

    def save(self, out: Path) -> None:
        """Replace the model in ``out``; a reader sees the old weights or the new, never a mix."""
        out.mkdir(parents=True, exist_ok=True)
        for name, content in (
            ("config.json", CONFIG.to_diff_dict()),
            ("generation_config.json", GENERATION_CONFIG),
        ):
            (out / name).write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")
        partial = out / "model.safetensors.partial"
        weights = {name: value.detach().bfloat16() for name, value in self.master.items()}
        save_file(weights, partial, metadata={"format": "pt"})
        partial.chmod(0o644)
        os.replace(partial, out / "model.safetensors")


def rate_at(step: int, share: float) -> float:
    """Learning rate factor: a short rise, a plateau, a linear fall to 2 %."""
    return min(1.0, (step + 1) / 100) * min(1.0, max(0.02, (1 - share) / (1 - DECAY_FROM)))


class Lessons:
    """What each step trains on: the warm-up, then recall of growing length with prose beside it.

    The averages move by a tenth per batch (prose: a thirtieth) and decide what comes next.
    """

    def __init__(self, trainer: Trainer, batches: Batches) -> None:
        self.trainer = trainer
        self.batches = batches
        self.part = 0
        self.warm = self.names = self.exact = self.prose = 0.0
        self.shape = FIRST_SHAPE

    def gather(self) -> None:
        """Add the gradients of one step."""
        if self.part < len(WARM_UP_AT):
            self._warm_up()
            return
        last = self.shape == len(CURRICULUM) - 1
        # Once the longest prompts are answered, every other step goes to prose alone.
        if not (last and self.exact > SETTLED_AT) or self.trainer.steps % 2 == 0:
            self._recall()
        if self.exact > ADVANCE_AT and not last:
            self.shape, self.exact = self.shape + 1, 0.0
            print(f"shape {self.shape}: {CURRICULUM[self.shape]}", flush=True)
        if self.shape > FIRST_SHAPE:  # prose joins once recall has appeared
            row = 2048 if last and self.batches.rng.random() < 0.15 else 512
            loss, _ = self.trainer.backward(*self.batches.prose(row))[PROSE]
            self.prose = 0.97 * self.prose + 0.03 * loss if self.prose else loss

    def _warm_up(self) -> None:
        rng = self.batches.rng
        gap = self.part - 1 if rng.random() < 0.7 else rng.randint(0, max(0, self.part - 1))
        batch = self.batches.repeated() if self.part == 0 else self.batches.lookups(gap)
        # Without the limit, every token that the warm-up never shows is pushed to the same
        # "never" embedding (input and output are tied), and recall with them does not form.
        report = self.trainer.backward(*batch, choices=self.batches.recall_vocabulary)
        if self.part == 0 or gap == self.part - 1:
            self.warm = 0.9 * self.warm + 0.1 * report[DIGIT][1]
        if self.warm > WARM_UP_AT[self.part]:
            self.part, self.warm = self.part + 1, 0.0
            print(f"warm-up part {self.part} at step {self.trainer.steps}", flush=True)

    def _recall(self) -> None:
        rng = self.batches.rng
        shape = self.shape if rng.random() < 0.65 else rng.randint(0, self.shape)
        report = self.trainer.backward(*self.batches.recall(CURRICULUM[shape]))
        self.names = 0.9 * self.names + 0.1 * report[NAME][1]
        if shape == self.shape:
            self.exact = 0.9 * self.exact + 0.1 * report[DIGIT][1]

    def __str__(self) -> str:
        return (
            f"part {self.part} warm {self.warm:.3f} shape {self.shape} names {self.names:.3f} "
            f"exact {self.exact:.3f} prose {self.prose:.3f}"
        )


def train(scratch: Path, out: Path, minutes: float, wall_minutes: float, seed: int) -> None:
    """Spend ``minutes`` of CPU time or ``wall_minutes`` of real time, whichever is over first."""
    torch.manual_seed(seed)
    torch.set_num_threads(1)
    tokenizer = Tokenizer.from_file(str(out / "tokenizer.json"))
    trainer = Trainer()
    lessons = Lessons(trainer, Batches(tokenizer, scratch / "corpus.jsonl", seed))
    cpu_started, started = time.process_time(), time.monotonic()
    saved = started
    while True:
        cpu, wall = time.process_time() - cpu_started, time.monotonic() - started
        share = max(cpu / (60 * minutes), wall / (60 * wall_minutes))
        if share >= 1:
            break
        lessons.gather()
        trainer.step(rate_at(trainer.steps, share))
        if trainer.steps % 20 == 0:
            print(
                f"step {trainer.steps} cpu {cpu:.0f} s wall {wall:.0f} s "
                f"tokens {trainer.tokens} {lessons}",
                flush=True,
            )
        if time.monotonic() - saved > 240:
            trainer.save(out)
            saved = time.monotonic()
    trainer.save(out)
    print(
        f"done: {trainer.steps} steps, {trainer.tokens} tokens, {cpu:.0f} CPU seconds, "
        f"{wall:.0f} seconds",
        flush=True,
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scratch", type=Path, help="folder with corpus.jsonl")
    parser.add_argument("out", type=Path, help="model folder with the tokenizer")
    parser.add_argument("--minutes", type=float, default=50, help="CPU minutes to spend")
    parser.add_argument("--wall-minutes", type=float, default=90, help="real minutes at most")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    train(
        arguments.scratch, arguments.out, arguments.minutes, arguments.wall_minutes, arguments.seed
    )
