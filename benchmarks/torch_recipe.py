"""The PyTorch side of finetune.py: the recipe of configs/sst2.toml in torch and transformers.

From the package it takes the numbers of the recipe, the rows of each step, the texts and the first
head; tokens, padding, dropout, the optimiser and the averages are its own. PyTorch is imported when
something is made, so that the script can say where it is missing.
"""

from typing import NamedTuple

import numpy as np

from enn_finetune.config import Config
from enn_finetune.data import tasks
from enn_finetune.data.splits import Split
from enn_finetune.problem import Problem, new_classifier, task_of


class Purchase(NamedTuple):
    """The rows (n,) of one step, and the labels bought by its end."""

    rows: np.ndarray
    labels: int


class Reference:
    """The recipe in PyTorch and transformers, for the rows and the first head it is given."""

    def __init__(self, problem: Problem, settings: Config):
        import torch
        from transformers import BertModel

        self.settings, recipe = settings, settings.training
        torch.manual_seed(settings.seed)
        self.bert = BertModel.from_pretrained(
            problem.folder, add_pooling_layer=False, dtype=torch.float32
        )
        first = new_classifier(problem, settings).head.linear
        self.head = torch.nn.Linear(*first.kernel.shape)
        with torch.no_grad():
            self.head.weight.copy_(torch.tensor(np.asarray(first.kernel[...]).T))
            self.head.bias.copy_(torch.tensor(np.asarray(first.bias[...])))
        self.bert.embeddings.word_embeddings.weight.requires_grad_(False)
        encoder = [p for p in self.bert.parameters() if p.requires_grad]
        self.trained = [*encoder, *self.head.parameters()]
        self.average = [p.detach().clone() for p in self.trained]
        self.adamw = torch.optim.AdamW(
            [
                {"params": encoder, "lr": recipe.lr},
                {"params": self.head.parameters(), "lr": recipe.head_lr},
            ],
            weight_decay=0.0,
        )
        self.warmup = torch.optim.lr_scheduler.LambdaLR(
            self.adamw, lambda step: min(1.0, (step + 1) / (recipe.warmup + 1))
        )
        self.steps = 0

    def logits(self, inputs):
        mask = inputs["attention_mask"][..., None]
        hidden = self.bert(**inputs).last_hidden_state
        return self.head((hidden * mask).sum(1) / mask.sum(1))

    def step(self, inputs, targets, labels: int) -> float:
        """One step with soft or hard targets (n, C); returns the loss before it."""
        import torch

        recipe = self.settings.train
        self.bert.train()
        self.adamw.zero_grad()
        loss = torch.nn.functional.cross_entropy(self.logits(inputs), targets)
        squares = sum((p**2).sum() for p in self.head.parameters())
        loss = loss + 0.5 * recipe.l2 / labels * squares
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.trained, recipe.clip)
        self.adamw.step()
        self.warmup.step()
        decay = min(recipe.average, self.steps / (self.steps + 1))
        with torch.no_grad():
            for mean, now in zip(self.average, self.trained, strict=True):
                mean.lerp_(now, 1 - decay)
        self.steps += 1
        return loss.item()

    def evaluate(self, batches) -> np.ndarray:
        """Log-probabilities (N, C) under the averaged weights, which replace the last ones."""
        import torch

        self.bert.eval()
        with torch.no_grad():
            for now, mean in zip(self.trained, self.average, strict=True):
                now.copy_(mean)
            found = [self.logits(inputs).log_softmax(-1) for inputs in batches]
        return torch.cat(found).numpy()


class Texts:
    """The train and the first evaluation split as text, tokenised as PyTorch users do."""

    def __init__(self, problem: Problem, settings: Config):
        from transformers import AutoTokenizer

        task = task_of(settings)
        names = [split.name for split in task.splits[:2]]
        self.train, self.dev = (tasks.load_split(task, name, settings.task.data) for name in names)
        self.tokenizer = AutoTokenizer.from_pretrained(problem.folder)
        self.most = settings.backbone.max_tokens

    def inputs(self, split: Split, rows: np.ndarray):
        """The rows padded to the longest of them."""
        part = split.take(rows)
        return self.tokenizer(
            part.text,
            part.pair,
            truncation="longest_first",
            max_length=self.most,
            padding=True,
            return_tensors="pt",
        )

    def batches(self, order: list[Purchase]) -> list[tuple[object, object, int]]:
        """What `Reference.step` takes, for every step."""
        import torch

        return [
            (self.inputs(self.train, rows), torch.tensor(self.train.targets[rows]), labels)
            for rows, labels in order
        ]

    def evaluation(self, size: int) -> list[object]:
        """The evaluation split in batches, its rows in order."""
        rows = np.arange(len(self.dev))
        return [self.inputs(self.dev, rows[i : i + size]) for i in range(0, len(rows), size)]
