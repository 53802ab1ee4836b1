"""`cifarnet push` and `cifarnet.load("hf://…")` against a hub on this machine that keeps what it is given."""

import base64
import http.server
import json
import shutil
import threading
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard, constants

import cifarnet
from cifarnet.storage.find_checkpoint import PACKAGED

COMMIT = "0" * 40


class Hub(http.server.BaseHTTPRequestHandler):
    """Repositories in memory: creating, committing, resolving."""

    files: dict[str, bytes] = {}  # noqa: RUF012
    asked: list[str] = []  # noqa: RUF012
    refuse = 0

    def answer(self, code, data, **headers):
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.asked.append(self.path)
        if self.refuse:
            return self.answer(self.refuse, b"{}", X_Error_Message="\x1b[31mno entry")
        lines = [json.loads(line) for line in body.splitlines()]
        here = f"http://{self.headers['Host']}/owner/name"
        found = {"url": here, "id": "owner/name", "errors": [], "warnings": []}
        if "/preupload/" in self.path:
            found["files"] = [
                {"path": one["path"], "uploadMode": "regular", "shouldIgnore": False} for one in lines[0]["files"]
            ]
        elif "/commit/" in self.path:
            for line in lines:
                if line["key"] == "file":
                    self.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            found |= {"commitUrl": f"{here}/commit/1", "commitOid": COMMIT, "success": True}
        self.answer(200, json.dumps(found).encode(), Content_Type="application/json")

    def do_GET(self):
        self.asked.append(self.path)
        data = self.files.get(self.path.rpartition("/")[2])
        if data is None:
            return self.answer(404, b"{}", X_Error_Code="EntryNotFound", X_Error_Message="no such file")
        self.answer(200, data, ETag='"1"', X_Repo_Commit=COMMIT)

    do_HEAD = do_GET

    def log_message(self, *_):
        pass


@pytest.fixture
def hub(monkeypatch, tmp_path):
    Hub.files, Hub.asked, Hub.refuse = {}, [], 0
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    yield Hub
    server.shutdown()
    server.server_close()


def test_a_model_comes_back_as_it_went(cli, hub, tmp_path):
    shutil.copy(PACKAGED, "mine.safetensors")
    code, out, err = cli("push", "mine.safetensors", "owner/name")
    assert code == 0 and out.endswith("/owner/name/commit/1\n"), err
    assert hub.files.keys() == {"model.safetensors", "README.md"}
    assert hub.files["model.safetensors"] == Path(PACKAGED).read_bytes()
    assert ModelCard(hub.files["README.md"].decode()).data.library_name == "cifarnet"
    model, own = cifarnet.load("hf://owner/name"), cifarnet.load(PACKAGED)
    image = torch.rand(3, 32, 32)
    assert torch.equal(model.logits(image), own.logits(image)) and model.classes == own.classes
    assert cifarnet.load("hf://owner/name/model.safetensors").classes == own.classes


def test_nothing_but_safetensors_is_asked_for(cli, hub, tmp_path):
    for address, why in (
        ("hf://owner/name/pytorch_model.bin", "is no safetensors file"),
        ("hf://owner/name/model.pt", "is no safetensors file"),
        ("hf://owner", "is no name of a repository"),
        ("hf://owner/../etc.safetensors/x.safetensors", "is no name of a repository"),
    ):
        with pytest.raises(cifarnet.Refused, match=why):
            cifarnet.load(address)
    assert hub.asked == []
    with pytest.raises(cifarnet.Failed, match="the hub answers 404"):
        cifarnet.load("hf://owner/nothing")
    hub.files["model.safetensors"] = b"\x80\x04 a pickle under a good name"
    with pytest.raises(cifarnet.Refused, match="is a pickle"):
        cifarnet.load("hf://owner/name")


def test_a_push_that_is_not_taken_is_one_line(cli, hub, monkeypatch):
    hub.refuse = 403
    shutil.copy(PACKAGED, "mine.safetensors")
    code, out, err = cli("push", "mine.safetensors", "owner/name")
    assert code == 1 and out == "" and err.count("\n") == 1 and "\x1b" not in err
    assert err.startswith("error: owner/name: the hub answers 403") and "hf auth login" in err
    for line, why in (
        (["nowhere", "owner/name"], "there is no such run"),
        (["mine.safetensors", "name"], "owner/name"),
    ):
        code, _, err = cli("push", *line)
        assert code == 2 and why in err
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    code, _, err = cli("push", "mine.safetensors", "owner/name")
    assert code == 1 and "the hub cannot be reached" in err and err.count("\n") == 1
