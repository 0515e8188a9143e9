"""Models on the Hub, with a server on this machine in its place."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from pocketvit.config import RunConfig, override
from pocketvit.config.weights import Weights
from pocketvit.errors import InputError

huggingface_hub = pytest.importorskip("huggingface_hub")
CONTENT = b"weights"


class Hub(BaseHTTPRequestHandler):
    """Has one file."""

    def do_HEAD(self):
        found = self.path == "/owner/name/resolve/main/model.safetensors"
        self.send_response(200 if found else 404)
        self.send_header("X-Repo-Commit", "0" * 40)
        self.send_header("ETag", '"one"')
        self.send_header("Content-Length", str(len(CONTENT) if found else 0))
        if not found:
            self.send_header("X-Error-Code", "EntryNotFound")
        self.end_headers()
        return found

    def do_GET(self):
        if self.do_HEAD():
            self.wfile.write(CONTENT)

    def log_message(self, *_):
        pass


@pytest.fixture
def hub(tmp_path, monkeypatch):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    fetch, place = huggingface_hub.hf_hub_download, f"http://127.0.0.1:{server.server_port}"

    def from_here(*arguments):
        return fetch(*arguments, endpoint=place, cache_dir=tmp_path / "cache")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", from_here)
    yield
    server.shutdown()
    server.server_close()


def test_a_published_model(hub):
    weights = Weights.find("hf:owner/name")
    assert weights.read() == CONTENT and weights.path.name == "model.safetensors"
    assert override(RunConfig(), {"init_from": "hf:owner/name"}).init_from == weights
    assert str(weights) == "hf:owner/name", "and not the path in a cache"


def test_what_is_not_there(hub, monkeypatch):
    with pytest.raises(InputError, match="init_from: hf:owner/other cannot be downloaded: [^\n]*404") as refused:
        override(RunConfig(), {"init_from": "hf:owner/other"})
    assert "\n" not in str(refused.value)
    for other in ("hf:name", "hf:a/b/c", "hf:../name", "hf:a b/c"):
        with pytest.raises(InputError, match="is not a model on the Hub: expected hf:OWNER/NAME"):
            Weights.find(other)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"hf:owner/name needs huggingface_hub: pip install 'pocketvit\[data\]'"):
        Weights.find("hf:owner/name")
