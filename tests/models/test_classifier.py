"""The whole classifier: logits over indices, and a folder that gives it back bit for bit."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_bert
from flax import nnx

from enn_finetune import files
from enn_finetune.errors import InputError
from enn_finetune.models.backbone import Identity, load_backbone
from enn_finetune.models.card import Card
from enn_finetune.models.classifier import Classifier, load_classifier
from enn_finetune.models.epinet import Prior
from enn_finetune.models.heads import HEADS, make_head

HEAD = {
    "kind": "epinet", "features": 8, "classes": 3, "hidden": [5], "index_dim": 4, "prior_scale": 0.5
}  # fmt: skip
LABELS = ("no", "maybe", "ja, ü")
EXAMPLES = tiny_bert.batch(5, 3, 7, 2)
CARD = Card(
    task="messages",
    base_model="some-one/tiny",
    tuned="full",
    rule="margin",
    seed=3,
    labels_bought=1234,
    metrics={"accuracy": 0.98765},
    config_hash="abc",
)


@pytest.fixture
def encoder(tmp_path: Path) -> Path:
    tiny_bert.write(tmp_path / "encoder")
    return tmp_path / "encoder"


def make(encoder: Path, seed: int = 1, **options: str) -> Classifier:
    return Classifier(load_backbone(encoder, **options), make_head(HEAD, rngs=nnx.Rngs(seed)))


def save(classifier: Classifier, folder: Path, encoder: Path, **options: object) -> None:
    options = {"tokenizer": encoder, "labels": LABELS, "max_tokens": 16, "card": CARD} | options
    classifier.save_pretrained(folder, **options)


def logits(classifier: Classifier, **options: object) -> np.ndarray:
    z = classifier.head.sample_index(jax.random.key(0), 6)
    return np.asarray(classifier.logits(EXAMPLES, z, **options))


def test_logits_are_the_heads_on_the_backbones_features(encoder):
    classifier = make(encoder)
    z = classifier.head.sample_index(jax.random.key(0), 6)
    features = classifier.backbone(EXAMPLES)
    assert logits(classifier).shape == (6, 4, 3)
    np.testing.assert_allclose(logits(classifier)[2], classifier.head(features, z[2]), atol=1e-5)
    frozen = Classifier(Identity(8), classifier.head)
    np.testing.assert_array_equal(frozen.logits(features, z), logits(classifier))
    log_probs = classifier.log_probs(EXAMPLES, z)
    np.testing.assert_allclose(np.exp(log_probs).sum(-1), 1, atol=1e-5)
    assert not np.allclose(logits(classifier, key=jax.random.key(1)), logits(classifier))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"pooling": "pooler"},
        {"pooling": "cls", "dtype": "bfloat16"},
        {"param_dtype": "bfloat16"},
    ],
)
def test_the_round_trip_is_bit_exact(encoder, tmp_path, options):
    classifier = make(encoder, **options)
    save(classifier, tmp_path / "saved", encoder, text="sentence", pair="other")
    loaded = load_classifier(tmp_path / "saved")
    assert nnx.graphdef(loaded.classifier) == nnx.graphdef(classifier)
    chosen = (nnx.state(model) for model in (classifier, loaded.classifier))
    before, after = (files.flatten(state) for state in chosen)
    assert before.keys() == after.keys()
    for name, array in before.items():
        assert array.dtype == after[name].dtype, name
        assert array.tobytes() == after[name].tobytes(), name
    np.testing.assert_array_equal(logits(loaded.classifier), logits(classifier))
    assert loaded.labels == LABELS
    assert (loaded.text, loaded.pair, loaded.task) == ("sentence", "other", "messages")
    assert loaded.max_tokens == 16
    pieces = [tiny_bert.VOCABULARY[piece] for piece in ("[CLS]", "hello", "[SEP]")]
    assert loaded.tokenizer("hello")["input_ids"] == pieces


@pytest.mark.parametrize("kind", HEADS)
def test_every_head_comes_back_with_all_its_arrays(encoder, tmp_path, kind):
    needed = {"members": 4} if kind == "members" else {}
    head = make_head({"kind": kind, "features": 8, "classes": 3, **needed}, rngs=nnx.Rngs(0))
    rng = np.random.default_rng(0)
    weights = nnx.state(head, nnx.Not(nnx.RngState))
    nnx.update(
        head, jax.tree.map(lambda a: jnp.asarray(rng.normal(size=a.shape), a.dtype), weights)
    )
    classifier = Classifier(load_backbone(encoder), head)
    save(classifier, tmp_path / "saved", encoder)
    loaded = Classifier.from_pretrained(tmp_path / "saved")
    assert loaded.head.config == head.config
    assert np.ptp(logits(classifier)) > 0
    np.testing.assert_array_equal(logits(loaded), logits(classifier))


def test_the_fixed_prior_is_saved_and_stays_no_parameter(encoder, tmp_path):
    classifier = make(encoder, seed=7)
    save(classifier, tmp_path / "saved", encoder)
    loaded = Classifier.from_pretrained(tmp_path / "saved")
    before, after = (files.flatten(nnx.state(m.head, Prior)) for m in (classifier, loaded))
    assert before
    for name in before:
        np.testing.assert_array_equal(after[name], before[name])
    other = files.flatten(nnx.state(make(encoder, seed=0).head, Prior))
    assert any(not np.array_equal(after[name], other[name]) for name in after)


def test_the_compute_type_can_be_chosen_on_loading(encoder, tmp_path):
    save(make(encoder), tmp_path / "saved", encoder)
    loaded = Classifier.from_pretrained(tmp_path / "saved", dtype="bfloat16")
    assert loaded.backbone.bert(EXAMPLES).dtype == jnp.bfloat16


def test_what_is_in_the_folder(encoder, tmp_path):
    folder = tmp_path / "saved"
    save(make(encoder), folder, encoder)
    assert sorted(path.name for path in folder.iterdir()) == [
        "README.md",
        "config.json",
        "head.json",
        "head.safetensors",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "vocab.txt",
    ]
    readme = (folder / "README.md").read_text(encoding="utf-8")
    for part in ("base_model: some-one/tiny", "1,234", "0.9877", "margin", "ja, ü", "epinet"):
        assert part in readme
    assert str(tmp_path) not in readme
    assert json.loads((folder / "head.json").read_text(encoding="utf-8"))["head"] == HEAD


def test_the_readme_of_a_card_without_facts(encoder, tmp_path):
    save(make(encoder), tmp_path / "saved", encoder, card=None)
    readme = (tmp_path / "saved" / "README.md").read_text(encoding="utf-8")
    assert "None" not in readme
    assert "base_model" not in readme


def test_transformers_reads_the_encoder_from_the_folder(encoder, tmp_path):
    torch = pytest.importorskip("torch", reason="compares with PyTorch transformers")
    import transformers

    classifier = make(encoder, pooling="pooler")
    save(classifier, tmp_path / "saved", encoder)
    theirs = transformers.AutoModel.from_pretrained(str(tmp_path / "saved")).eval()
    real = np.asarray(EXAMPLES.owner) < len(EXAMPLES.first)
    with torch.no_grad():
        pooled = theirs(
            input_ids=torch.tensor(EXAMPLES.ids).long(),
            token_type_ids=torch.tensor(EXAMPLES.types).long(),
            attention_mask=torch.tensor(real).long(),
        ).pooler_output
    np.testing.assert_allclose(classifier.backbone(EXAMPLES), pooled.numpy(), atol=1e-5)
    tokenizer = transformers.AutoTokenizer.from_pretrained(str(tmp_path / "saved"))
    assert (
        tokenizer("hello")["input_ids"]
        == load_classifier(tmp_path / "saved").tokenizer("hello")["input_ids"]
    )


# --- refusals ------------------------------------------------------------------------------------


def test_what_cannot_be_saved_is_refused_and_leaves_nothing(encoder, tmp_path):
    classifier, folder = make(encoder), tmp_path / "saved"
    with pytest.raises(ValueError, match=r"found \['a', 'b'\], expected 3 distinct"):
        save(classifier, folder, encoder, labels=["a", "b"])
    with pytest.raises(ValueError, match="expected 3 distinct"):
        save(classifier, folder, encoder, labels=["a", "b", "a"])
    with pytest.raises(ValueError, match="the backbone Identity; save Classifier"):
        save(Classifier(Identity(8), classifier.head), folder, encoder)
    with pytest.raises(InputError, match=r"found neither tokenizer\.json"):
        save(classifier, folder, encoder, tokenizer=tmp_path)
    head = nnx.Linear(8, 3, rngs=nnx.Rngs(0))
    head.classes = 3
    with pytest.raises(ValueError, match="found no `config` on the head Linear"):
        save(Classifier(classifier.backbone, head), folder, encoder)
    assert [path.name for path in tmp_path.iterdir()] == ["encoder"]


def test_saving_again_replaces_a_classifier_and_nothing_else(encoder, tmp_path):
    folder = tmp_path / "saved"
    save(make(encoder, seed=1), folder, encoder)
    second = make(encoder, seed=2)
    save(second, folder, folder)  # with the tokenizer that is there
    np.testing.assert_array_equal(logits(Classifier.from_pretrained(folder)), logits(second))
    with pytest.raises(InputError, match="holds config"):
        save(second, encoder, encoder)


def test_folders_that_are_no_classifier(encoder, tmp_path):
    with pytest.raises(InputError, match="an encoder, not a saved classifier"):
        load_classifier(encoder)
    with pytest.raises(InputError, match=r"head\.json: no such file"):
        load_classifier(tmp_path)
    with pytest.raises(InputError, match="no folder"):
        load_classifier(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["head.safetensors", "model.safetensors", "config.json"])
def test_missing_files_are_named(encoder, tmp_path, name):
    save(make(encoder), tmp_path / "saved", encoder)
    (tmp_path / "saved" / name).unlink()
    with pytest.raises(InputError, match=rf"{name}"):
        load_classifier(tmp_path / "saved")


@pytest.mark.parametrize("name", ["head.safetensors", "model.safetensors", "head.json"])
def test_truncated_files_are_named(encoder, tmp_path, name):
    save(make(encoder), tmp_path / "saved", encoder)
    path = tmp_path / "saved" / name
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(InputError, match=rf"{path}: found"):
        load_classifier(tmp_path / "saved")


def test_damaged_tensors_are_all_named(encoder, tmp_path):
    save(make(encoder), tmp_path / "saved", encoder)
    path = tmp_path / "saved" / "head.safetensors"
    arrays, _ = files.load_arrays(path)
    first, second, third = sorted(arrays)[:3]
    del arrays[first]
    arrays[second] = arrays[second][..., :-1]
    arrays[third] = arrays[third].astype(np.float16)
    files.save_arrays(path, arrays)
    with pytest.raises(InputError, match=r"head\.safetensors: 3 of") as error:
        load_classifier(tmp_path / "saved")
    for fault in (f"missing: {first}", f"shape: {second}", f"type: {third}"):
        assert fault in str(error.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 3}, "format: found 3"),
        ({"format": 1}, "rows of unit norm"),
        ({"labels": ["a"]}, "labels: found 1 names for the 3 classes"),
        ({"max_tokens": 0, "pooling": "max"}, "pooling: found 'max'.*max_tokens: found 0"),
        ({"head": {"kind": "what"}}, "head.*what"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_a_changed_head_file_is_an_error_that_names_the_key(encoder, tmp_path, changes, message):
    save(make(encoder), tmp_path / "saved", encoder)
    path = tmp_path / "saved" / "head.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes))
    with pytest.raises(InputError, match=rf"head\.json: .*{message}"):
        load_classifier(tmp_path / "saved")


# --- crashes -------------------------------------------------------------------------------------

KILLED = """
import os, signal, sys
from pathlib import Path
import jax
jax.config.update("jax_platforms", "cpu")
from flax import nnx
from enn_finetune import files
from enn_finetune.models.backbone import load_backbone
from enn_finetune.models.classifier import Classifier
from enn_finetune.models.heads import HEADS, make_head

encoder, folder, point, head = sys.argv[1:]
classifier = Classifier(load_backbone(Path(encoder)), make_head(eval(head), rngs=nnx.Rngs(2)))

def die(*args, **options):
    os.kill(os.getpid(), signal.SIGKILL)

if point == "half written":
    def half(path, *args, **options):
        Path(path).write_bytes(b"half")
        if Path(path).name == "head.safetensors":
            die()
    files.save_arrays = half
else:
    rename, calls = os.rename, []
    def second(*args):
        calls.append(args)
        rename(*args) if len(calls) == 1 else die()
    os.rename = second
classifier.save_pretrained(folder, tokenizer=Path(encoder), labels=["a", "b", "c"], max_tokens=9)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("point", "expected"), [("half written", LABELS), ("between renames", ("a", "b", "c"))]
)
def test_kill_9_leaves_the_old_or_the_new_classifier(encoder, tmp_path, point, expected):
    folder = tmp_path / "saved"
    save(make(encoder), folder, encoder)
    arguments = [str(encoder), str(folder), point, repr(HEAD)]
    done = subprocess.run([sys.executable, "-c", KILLED, *arguments], check=False)
    assert done.returncode == -signal.SIGKILL
    loaded = load_classifier(folder)
    assert loaded.labels == expected
    assert np.isfinite(logits(loaded.classifier)).all()
    save(make(encoder), folder, encoder)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["encoder", "saved"]
