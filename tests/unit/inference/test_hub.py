"""Pushing a model, to a server on this machine that plays the Hub."""

import base64
import http.server
import json
import re
import threading
from collections.abc import Iterator

import pytest

from pocketvit.cli import dispatch
from pocketvit.errors import InputError

MODEL = "me/digits"


class Hub(http.server.ThreadingHTTPServer):
    """Keeps the files of the commits that it is sent; `refuses` requests with a status, by a part of their path."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.made: list[dict] = []
        self.files: dict[str, bytes] = {}
        self.tokens: set[str | None] = set()
        self.refuses: dict[str, int] = {}

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        """Say nothing."""

    def do_POST(self) -> None:
        hub, body = self.server, self.rfile.read(int(self.headers["Content-Length"]))
        hub.tokens.add(self.headers.get("Authorization"))
        path = self.path.partition("?")[0]
        if status := next((status for part, status in hub.refuses.items() if part in path), None):
            self._answer({"error": "the quota is used up"}, status)
        elif path == "/api/repos/create":
            hub.made.append(json.loads(body))
            self._answer({"url": f"{hub.address}/{MODEL}"})
        elif path == f"/api/models/{MODEL}/preupload/main":
            files = [{"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                     for file in json.loads(body)["files"]]  # fmt: skip
            self._answer({"files": files})
        elif path == f"/api/models/{MODEL}/commit/main":
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    assert line["value"]["encoding"] == "base64"
                    hub.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            self._answer({"commitUrl": f"{hub.address}/{MODEL}/commit/{'0' * 40}", "commitOid": "0" * 40})
        else:
            self._answer({}, 200 if "validate" in path else 404)

    def do_GET(self) -> None:
        self._answer({"id": MODEL, "sha": "0" * 40, "siblings": []})

    def _answer(self, content: dict, status: int = 200) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def hub(monkeypatch, tmp_path) -> Iterator[Hub]:
    """The server, which huggingface_hub takes for the Hub, with a token for it."""
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    with Hub() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        for name in ("constants.ENDPOINT", "hf_api.ENDPOINT"):
            monkeypatch.setattr(f"huggingface_hub.{name}", running.address, raising=False)
        monkeypatch.chdir(tmp_path)
        yield running
        running.shutdown()
        thread.join()


@pytest.mark.parametrize("private", [False, True])
def test_a_push_makes_the_model_and_uploads_the_folder(private, hub, run_folder, tmp_path, capsys):
    flags = ["--private"] if private else []
    assert dispatch(["export", str(run_folder), "--format", "timm", "--out", "out", "--push", MODEL, *flags]) == 0
    (made,) = hub.made
    assert (made["organization"], made["name"]) == ("me", "digits")
    assert private == (made.get("private") is True or made.get("visibility") == "private")
    assert hub.files == {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()}
    assert {"README.md", "config.json", "model.safetensors"} == set(hub.files)
    assert hub.tokens == {"Bearer hf_secret"}
    assert capsys.readouterr().out.endswith(f"pushed: {hub.address}/{MODEL}\n")


@pytest.mark.parametrize(
    ("part", "status", "says"), [("repos/create", 400, "quota is used up"), ("commit", 401, "401")]
)
def test_a_hub_that_refuses_is_one_line_and_the_folder_stays(part, status, says, hub, run_folder, tmp_path):
    hub.refuses[part] = status
    with pytest.raises(InputError, match=f"^out is complete, but cannot be pushed to {MODEL}: .+") as error:
        dispatch(["export", str(run_folder), "--format", "timm", "--out", "out", "--push", MODEL])
    assert "\n" not in str(error.value) and says in str(error.value)
    assert (tmp_path / "out" / "README.md").is_file()


def test_without_a_token_nothing_is_done(hub, run_folder, tmp_path, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "none"))
    words = f"--push {MODEL} needs a token of the Hugging Face Hub that may write; run `hf auth login`, or set HF_TOKEN"
    with pytest.raises(InputError, match=f"^{re.escape(words)}$"):
        dispatch(["export", str(run_folder), "--format", "timm", "--out", "out", "--push", MODEL])
    assert not hub.made and not (tmp_path / "out").exists()
