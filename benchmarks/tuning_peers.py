"""PyTorch's side of tuning.py, in a process of its own and with the peers' interpreter.

    python tuning_peers.py FOLDER BATCH.npz THREADS

Its first line says what there is of each side; then it answers every line [SIDE, WORK, calls] with
a `Sample`. Needs numpy and what it compares with; nothing of this package.
"""

import json
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

CLASSES, RANK, ALPHA, LEARNING_RATE = 2, 8, 16.0, 1e-6
MIB = 2**20
Run = Callable[[], object]


class Sample(NamedTuple):
    """Milliseconds of one call: of the processor, over all threads, and on the wall clock."""

    cpu_ms: float
    wall_ms: float


def sample(run: Run, calls: int) -> Sample:
    """The mean of some calls."""
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(calls):
        run()
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    return Sample(cpu / calls * 1e3, wall / calls * 1e3)


def best(samples: list[Sample]) -> Sample:
    """The one that took the processor least."""
    return min(samples)


def full(folder: str) -> Any:
    """The encoder, all of it trained but the word table."""
    import torch
    from transformers import BertModel
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    model = BertModel.from_pretrained(
        folder, attn_implementation="sdpa", add_pooling_layer=False, dtype=torch.float32
    )
    model.embeddings.word_embeddings.weight.requires_grad_(False)
    return model


def lora(folder: str) -> Any:
    """Peft's LoRA on queries and values, which is where it puts it in a BERT by default."""
    from peft import LoraConfig, get_peft_model

    settings = LoraConfig(
        r=RANK, lora_alpha=ALPHA, target_modules=["query", "value"], lora_dropout=0.0, bias="none"
    )
    return get_peft_model(full(folder), settings)


SIDES = {"torch, full": full, "peft, lora": lora}


def prepare(name: str, folder: str, batch: str) -> tuple[dict[str, float], dict[str, Run]]:
    """Trained numbers and MiB of a side, and its work."""
    import torch

    given = np.load(batch)
    ids, labels = torch.tensor(given["ids"]).long(), torch.tensor(given["labels"]).long()
    mask = torch.ones_like(ids)

    def logits(model: Any, head: Any) -> Any:
        hidden = model(input_ids=ids, attention_mask=mask).last_hidden_state
        return head((hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True))

    model = SIDES[name](folder).train()
    head = torch.nn.Linear(model.config.hidden_size, CLASSES)
    encoder = [p for p in model.parameters() if p.requires_grad]
    trained = [*encoder, *head.parameters()]
    adamw = torch.optim.AdamW(trained, lr=LEARNING_RATE, weight_decay=0.01, fused=True)

    def step() -> None:
        adamw.zero_grad()
        torch.nn.functional.cross_entropy(logits(model, head), labels).backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        adamw.step()

    evaluated = SIDES[name](folder)
    if hasattr(evaluated, "merge_and_unload"):
        evaluated = evaluated.merge_and_unload()
    evaluated.eval()

    def score() -> None:
        with torch.no_grad():
            logits(evaluated, head).log_softmax(-1)

    weights = {p.untyped_storage().data_ptr(): p.nbytes for p in (*model.parameters(), *trained)}
    kept: dict[int, int] = {}

    def note(tensor: Any) -> Any:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        loss = torch.nn.functional.cross_entropy(logits(model, head), labels)
    loss.backward()
    moments = 3 * sum(p.nbytes for p in trained)  # and gradients
    about = {
        "trained": sum(p.numel() for p in encoder),
        "train_mib": (sum(weights.values()) + sum(kept.values()) + moments) / MIB,
    }
    for run in (step, step, score, score):
        run()
    return about, {"train": step, "score": score}


def main() -> None:
    folder, batch, threads = sys.argv[1:]
    found: dict[str, dict[str, Any]] = {}
    runs: dict[str, dict[str, Run]] = {}
    for name in SIDES:
        try:
            import torch

            torch.set_num_threads(int(threads))
            found[name], runs[name] = prepare(name, folder, batch)
        except ImportError as error:
            found[name] = {"missing": f"{error}"}
    print(json.dumps(found), flush=True)
    for line in sys.stdin:
        side, work, calls = json.loads(line)
        print(json.dumps(sample(runs[side][work], calls)), flush=True)


if __name__ == "__main__":
    main()
