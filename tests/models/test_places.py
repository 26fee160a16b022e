"""Where an encoder is found, what is said when it is not, and that its tokenizer is its own."""

import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import tiny_bert
import tokenizers

from enn_finetune.errors import InputError
from enn_finetune.models import places
from enn_finetune.models.places import backbone_name, find_backbone, load_tokenizer

# --- places --------------------------------------------------------------------------------------


def test_a_folder_is_found_before_later_places(tmp_path):
    tiny_bert.write(tmp_path / "a")
    assert find_backbone(str(tmp_path / "a")) == tmp_path / "a"
    assert find_backbone([str(tmp_path / "b"), str(tmp_path / "a"), "minilm"]) == tmp_path / "a"


def test_minilm_by_both_names_is_the_installed_package(minilm):
    assert find_backbone("minilm") == minilm
    assert find_backbone(["sentence-transformers/all-MiniLM-L6-v2"]) == minilm


def test_names_are_ids_where_there_is_one_and_never_paths(minilm, tmp_path):
    assert backbone_name(minilm) == "sentence-transformers/all-MiniLM-L6-v2"
    assert backbone_name(tmp_path / "models--a--b" / "snapshots" / "0123") == "a/b"
    assert backbone_name(tmp_path / "models--bert--base" / "x" / "mine") == "mine"


def test_minilm_with_other_weights_is_an_error_with_both_digests(tmp_path, monkeypatch):
    package = tmp_path / places.MINILM_PACKAGE
    tiny_bert.write(package / "model")
    (package / "__init__.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, places.MINILM_PACKAGE, raising=False)
    found = places.sha256(package / "model" / "model.safetensors")
    with pytest.raises(InputError, match=f"found {found}, expected {places.MINILM_SHA256}"):
        find_backbone("minilm")
    (package / "model" / "model.safetensors").unlink()
    with pytest.raises(InputError, match="found no such file, expected"):
        find_backbone("minilm")


def test_the_error_lists_every_place_with_its_reason(tmp_path, monkeypatch):
    monkeypatch.setattr(places, "MINILM_PACKAGE", "no_such_package_here")
    (tmp_path / "x.bin").touch()
    tried = [str(tmp_path), str(tmp_path / "gone"), "./gone", "minilm", "some-one/bert", "a b"]
    with pytest.raises(InputError) as error:
        find_backbone(tried)
    lines = str(error.value).splitlines()
    assert lines[0] == "backbone.path: found no encoder in these 6 places:"
    assert lines[1].strip() == f"{tmp_path}: a folder without config.json; it holds x.bin"
    for line, place in zip(lines[2:4], tried[1:3], strict=True):
        assert line.strip() == f"{place}: no such folder; correct the path"
    assert "--extra demo" in lines[4]
    assert "--no-deps" in lines[4]
    assert "some-one/bert: no such folder; and the hub: LocalEntryNotFoundError" in lines[5]
    assert "copy the repository's files to a folder" in lines[5]
    assert lines[6].strip() == "a b: no such folder; correct the path"
    assert lines[7].startswith("Give a folder")


# --- the hub, at its HTTP edge -------------------------------------------------------------------

SHA = "0123456789abcdef0123456789abcdef01234567"


class Hub(ThreadingHTTPServer):
    """One repository `some-one/tiny` of a model hub, on the loopback interface."""

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder = folder
        self.served: list[str] = []


class Handler(BaseHTTPRequestHandler):
    """The end points that a snapshot needs."""

    server: Hub

    def log_message(self, *args: object) -> None:
        """Not on the terminal."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        info = "/api/models/some-one/tiny"
        files = sorted(p for p in self.server.folder.rglob("*") if p.is_file())
        names = [str(p.relative_to(self.server.folder)) for p in files]
        if path in (info, f"{info}/revision/main", f"{info}/revision/{SHA}"):
            siblings = [{"rfilename": name} for name in names]
            self.send_json({"id": "some-one/tiny", "sha": SHA, "siblings": siblings})
        elif path == f"{info}/tree/{SHA}":
            self.send_json([entry(self.server.folder, name) for name in names])
        elif path.startswith(f"/some-one/tiny/resolve/{SHA}/"):
            self.send_file(path.removeprefix(f"/some-one/tiny/resolve/{SHA}/"))
        else:
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()

    def send_json(self, value: object) -> None:
        self.send(json.dumps(value).encode(), {"Content-Type": "application/json"})

    def send_file(self, name: str) -> None:
        data = (self.server.folder / name).read_bytes()
        self.server.served.append(name)
        self.send(data, {"ETag": f'"{hash(data):x}"', "X-Repo-Commit": SHA})

    def send(self, data: bytes, headers: dict[str, str]) -> None:
        self.send_response(200)
        for key, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)


def entry(folder: Path, name: str) -> dict[str, object]:
    return {"type": "file", "path": name, "size": (folder / name).stat().st_size, "oid": SHA}


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    folder = tmp_path / "remote"
    tiny_bert.write(folder)
    for name in ("1_Pooling/config.json", "onnx/model.onnx", "2_Dense/model.safetensors"):
        (folder / name).parent.mkdir()
        (folder / name).write_text("{}")
    for name in ("pytorch_model.bin", "modeling_custom.py"):
        (folder / name).write_text("raise SystemExit('run')")
    server = Hub(folder)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def find_in_subprocess(place: str, cache: Path, endpoint: str, offline: str) -> str:
    """The hub's client reads its environment when it is imported."""
    code = (
        "import sys\n"
        "from enn_finetune.errors import InputError\n"
        "from enn_finetune.models.places import find_backbone\n"
        "try:\n"
        "    print(find_backbone(sys.argv[1]))\n"
        "except InputError as error:\n"
        "    print('ERROR', error)\n"
    )
    environment = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
    environment |= {"HF_ENDPOINT": endpoint, "HF_HOME": str(cache), "HF_HUB_OFFLINE": offline}
    environment |= {"NO_PROXY": "*", "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code, place],
        capture_output=True, text=True, check=True, env=environment, timeout=120,
    )  # fmt: skip
    return done.stdout.strip()


@pytest.mark.slow
def test_a_hub_id_brings_what_is_needed_and_nothing_else(hub, tmp_path):
    endpoint = f"http://127.0.0.1:{hub.server_address[1]}"
    cache = tmp_path / "cache"
    found = Path(find_in_subprocess("some-one/tiny", cache, endpoint, "0"))
    wanted = {"config.json", "model.safetensors", "1_Pooling/config.json", "vocab.txt"}
    wanted |= {"tokenizer.json", "tokenizer_config.json"}
    assert {str(p.relative_to(found)) for p in found.rglob("*") if p.is_file()} == wanted
    assert set(hub.served) == wanted
    assert (found / "model.safetensors").read_bytes() == (
        hub.folder / "model.safetensors"
    ).read_bytes()
    assert backbone_name(found) == "some-one/tiny"
    # From now on without a network.
    nowhere = "http://127.0.0.1:9"
    assert find_in_subprocess("some-one/tiny", cache, nowhere, "1") == str(found)
    assert find_in_subprocess(f"some-one/tiny@{SHA}", cache, nowhere, "1") == str(found)
    unknown = find_in_subprocess("some-one/other", tmp_path / "empty", endpoint, "0")
    assert "ERROR backbone.path: found no encoder in this place:" in unknown
    assert "some-one/other: no such folder; and the hub: RepositoryNotFoundError" in unknown
    down = find_in_subprocess("some-one/tiny", tmp_path / "empty", nowhere, "0")
    assert "some-one/tiny: no such folder; and the hub: " in down
    assert "connection" in down


# --- tokenizers ----------------------------------------------------------------------------------


@pytest.mark.parametrize("keep", ["tokenizer.json", "vocab.txt"])
def test_one_of_the_tokenizer_files_is_enough(tmp_path, keep):
    tiny_bert.write(tmp_path)
    for name in {"tokenizer.json", "vocab.txt", "tokenizer_config.json"} - {keep}:
        (tmp_path / name).unlink()
    found = load_tokenizer(tmp_path)("Hello cab", "b")
    pieces = ["[CLS]", "hello", "c", "##a", "##b", "[SEP]", "b", "[SEP]"]
    expected = [tiny_bert.VOCABULARY[piece] for piece in pieces]
    assert found["input_ids"] == expected
    assert found["token_type_ids"] == [0] * 6 + [1] * 2


@pytest.mark.parametrize("place", ["minilm", "gte-small"])
def test_real_tokenizers_follow_their_tokenizer_json(place, request):
    if place == "minilm":
        folder = request.getfixturevalue("minilm")
    else:
        folder = request.getfixturevalue("shared") / "models" / place
    plain = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    plain.no_padding()
    plain.no_truncation()
    tokenizer = load_tokenizer(folder)
    for text in ("A touching, if imperfect, film .", "ÉCOLE naïve 東京", "", "x" * 300):
        assert tokenizer(text)["input_ids"] == plain.encode(text).ids
    pair, expected = tokenizer("Is it so?", "It is."), plain.encode("Is it so?", "It is.")
    assert pair["input_ids"] == expected.ids
    assert pair["token_type_ids"] == expected.type_ids


def test_folders_without_a_tokenizer_are_refused(tmp_path):
    tiny_bert.write(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    (tmp_path / "vocab.txt").unlink()
    with pytest.raises(InputError, match=r"found neither tokenizer\.json nor vocab\.txt"):
        load_tokenizer(tmp_path)


def test_a_damaged_tokenizer_is_an_error_that_names_the_folder(tmp_path):
    tiny_bert.write(tmp_path)
    (tmp_path / "tokenizer.json").write_text('{"version": ')
    with pytest.raises(InputError, match="tokenizer files cannot be read"):
        load_tokenizer(tmp_path)


def test_a_cased_tokenizer_is_not_silently_lowercased(tmp_path):
    tiny_bert.write(tmp_path)
    path = tmp_path / "tokenizer.json"
    values = json.loads(path.read_text())
    values["normalizer"]["lowercase"] = False
    path.write_text(json.dumps(values))
    (tmp_path / "tokenizer_config.json").unlink()
    with pytest.raises(InputError, match="do_lower_case"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(
        '{"tokenizer_class": "BertTokenizer", "do_lower_case": false}'
    )
    unknown = tiny_bert.VOCABULARY["[UNK]"]
    assert load_tokenizer(tmp_path)("A a")["input_ids"][1:3] == [
        unknown,
        tiny_bert.VOCABULARY["a"],
    ]


def test_a_tokenizer_of_another_encoder_is_refused(tmp_path):
    tiny_bert.write(tmp_path, vocab_size=10)
    with pytest.raises(InputError, match=r"has 59 tokens.*vocab_size=10"):
        load_tokenizer(tmp_path)


def test_code_in_a_folder_is_never_run(tmp_path):
    tiny_bert.write(tmp_path, auto_map={"AutoTokenizer": ["custom.Custom", None]})
    (tmp_path / "custom.py").write_text(
        f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Custom: pass\n"
    )
    settings = {"tokenizer_class": "Custom", "auto_map": {"AutoTokenizer": ["custom.Custom", None]}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    with contextlib.suppress(InputError):
        load_tokenizer(tmp_path)
    assert not (tmp_path / "ran").exists()
