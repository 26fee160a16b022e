"""The model card: README.md of a saved classifier."""

from collections.abc import Mapping
from dataclasses import dataclass, field

TUNED = {
    "frozen": "as pretrained",
    "last": "last layers fine-tuned",
    "bitfit": "biases fine-tuned (BitFit)",
    "lora": "fine-tuned by LoRA, folded into the weights",
    "ia3": "fine-tuned by IA3, folded into the weights",
    "full": "fine-tuned",
}
"""What the card says of values of `backbone.tune`."""


@dataclass(frozen=True)
class Card:
    """What a saved classifier is and how it came about. Nothing here changes a prediction."""

    task: str = "custom"
    base_model: str = ""  # place or id of the pretrained encoder, not a path of this machine
    tuned: str = ""  # a value of backbone.tune
    rule: str = ""  # acquisition rule
    seed: int | None = None
    labels_bought: int | None = None
    described: tuple[str, ...] = ()  # entries CLASS: a sentence, that the head's prior began with
    metrics: Mapping[str, float] = field(default_factory=dict)  # by name, on held-out rows
    config_hash: str = ""


def readme(
    card: Card,
    *,
    head: str,
    labels: tuple[str, ...],
    pooling: str,
    layers: tuple[int, ...],
    depth: int,
    pairs: str = "",
) -> str:
    """The card as Markdown with the YAML header that model hubs read; `layers` of `depth`.

    `pairs` is how two texts a row are read, empty where there is one.
    """
    several = f" of layers {', '.join(map(str, layers))} of {depth}, side by side"
    header = ["library_name: enn-finetune", "pipeline_tag: text-classification"]
    if card.base_model:
        header.append(f"base_model: {card.base_model}")
    facts = {
        "task": card.task,
        "base model": card.base_model,
        "encoder": TUNED.get(card.tuned, card.tuned),
        "pooling": pooling + (several if layers != (depth,) else ""),
        "pairs": f"{pairs}: {PAIRS[pairs]}" if pairs else "",
        "head": head,
        "classes": ", ".join(labels),
        "labels bought": "" if card.labels_bought is None else f"{card.labels_bought:,}",
        "described as": "; ".join(card.described).replace("|", "\\|"),
        "acquisition rule": card.rule,
        "seed": "" if card.seed is None else str(card.seed),
        "config hash": card.config_hash,
    }
    lines = ["---", *header, "---", "", f"# Text classifier: {card.task}", ""]
    lines += ["| | |", "|---|---|", *(f"| {k} | {v} |" for k, v in facts.items() if v), ""]
    if card.metrics:
        lines += ["| metric (held-out rows) | value |", "|---|---|"]
        lines += [f"| {name} | {value:.4f} |" for name, value in card.metrics.items()] + [""]
    return "\n".join(lines).rstrip("\n") + "\n\n" + USE  # a table ends with an empty line


PAIRS = {
    "joint": "both texts in one sequence",
    "difference": "each text by itself, features are the absolute values of u - v",
}
USE = """\
`model.safetensors` is the encoder in Hugging Face layout; `head.safetensors` and `head.json` are
the head, its labels, and how the text is cut. Load all of it, or score a file:

```python
from enn_finetune.models.classifier import load_classifier

loaded = load_classifier("this/folder")  # classifier, tokenizer, labels
```

    enn-finetune score this/folder --input rows.jsonl --output scored.jsonl

The encoder alone: `transformers.AutoModel.from_pretrained("this/folder")`.
"""
