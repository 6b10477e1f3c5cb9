"""Suppliers on loopback that echo log-probabilities in the ways of real servers, and wrongly.

Docs are rows of ``query``, ``choices`` and ``gold``. A token of a prompt that ends in the right choice has
-0.1, any other -2: who reads the answers rightly scores 1.
"""

from __future__ import annotations

import json
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml

from testbench_dagster.config import load_config
from testbench_dagster.stages.discover.roster import refresh_roster
from testbench_dagster.stages.relay.relay import relay_due
from testbench_dagster.stages.sample.catalogue import refresh_dataset, refresh_prompts
from testbench_dagster.stages.score.score import score_new
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.tasks.worker import FrameworkWorker

#: Right ones first, second and third; words that cut characters.
DOCS: list[dict[str, Any]] = [
    {"query": "Question: What is the sky?\nAnswer:", "choices": ["green", "blue", "red"], "gold": 1},
    {
        "query": "Question: Où boit-on ?\nAnswer:",
        "choices": ["au café", "à la gare", "nulle part"],
        "gold": 0,
    },
    {"query": "Question: 你好吗？\nAnswer:", "choices": ["不", "是", "很好 😀"], "gold": 2},
    {"query": "Question: 😀 is a smile\nAnswer:", "choices": ["no", "yes", "maybe 😐"], "gold": 1},
    {"query": "Question: what ends in é\nAnswer:", "choices": ["cafe", "caf", "café"], "gold": 2},
    {"query": "Question: 1 + 1 = ?\nAnswer:", "choices": ["3", "1", "2"], "gold": 2},
]
TASK = """task: echoes
dataset_path: json
output_type: multiple_choice
test_split: test
doc_to_text: "{{query}}"
doc_to_target: gold
doc_to_choice: "{{choices}}"
num_fewshot: 0
metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
  - {metric: acc_norm, aggregation: mean, higher_is_better: true}
  - {metric: exact_match, aggregation: mean, higher_is_better: true}
"""
#: Is asked for greediness alone: its accuracy is whether the target is the likeliest.
GREEDY_TASK = """task: greedy
dataset_path: json
output_type: loglikelihood
test_split: test
doc_to_text: "{{query}}"
doc_to_target: " {{choices[gold]}}"
num_fewshot: 0
metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
  - {metric: perplexity, aggregation: perplexity, higher_is_better: false}
"""
_PIECES = re.compile(r" ?[^\s\W]+|\s+(?=\S)|\s+|[^\w\s]")


@dataclass
class Asked:
    """A prompt's tokens as bytes, and whether it ends in the right choice; ``doc`` is its place, or None."""

    prompt: str
    right: bool
    doc: int | None
    pieces: list[bytes] = field(default_factory=list)
    generated: list[bytes] = field(default_factory=lambda: [b" the"])

    def __post_init__(self) -> None:
        for piece in _PIECES.findall(self.prompt):
            data = piece.encode()
            # beyond ASCII a word is cut within its characters
            self.pieces += [data] if piece.isascii() else [data[n : n + 2] for n in range(0, len(data), 2)]

    @property
    def all(self) -> list[bytes]:
        return self.pieces + self.generated

    def choice(self, show: Callable[[list[bytes]], list[str]], **changes: Any) -> dict[str, Any]:
        """A choice whose tokens are shown so; changes replace lists, and ``...`` leaves one out."""
        tokens = show(self.all)
        values: list[Any] = [None, *[-0.1 if self.right else -2.0] * (len(tokens) - 1)]
        lists = {
            "tokens": tokens,
            "token_logprobs": values,
            "top_logprobs": [None if v is None else {t: v} for t, v in zip(tokens, values, strict=True)],
            "text_offset": [
                len(b"".join(self.all[:n]).decode("utf-8", "ignore")) for n in range(len(tokens))
            ],
        } | {name: list_ for name, list_ in changes.items() if name != "text"}
        text = self.prompt + b"".join(self.generated).decode("utf-8", "ignore")
        return {
            "index": 0,
            "text": changes.get("text", text),
            "finish_reason": "length",
            "logprobs": {name: value for name, value in lists.items() if value is not ...},
        }


def whole(pieces: list[bytes]) -> list[str]:
    """Characters whole, with the token that completes them."""
    shown, seen = [], b""
    for piece in pieces:
        before = seen.decode("utf-8", "ignore")
        seen += piece
        shown.append(seen.decode("utf-8", "ignore")[len(before) :])
    return shown


def replaced(pieces: list[bytes]) -> list[str]:
    """Pieces of characters as U+FFFD."""
    return [piece.decode("utf-8", "replace") for piece in pieces]


def hidden(pieces: list[bytes]) -> list[str]:
    """Pieces of characters as nothing."""
    return [piece.decode("utf-8", "ignore") for piece in pieces]


def escaped(pieces: list[bytes]) -> list[str]:
    """Pieces of characters as OpenAI wrote them in 2021."""

    def shown(piece: bytes) -> str:
        try:
            return piece.decode()
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{byte:02x}" if byte >= 128 else chr(byte) for byte in piece)

    return [shown(piece) for piece in pieces]


def vocabulary(pieces: list[bytes]) -> list[str]:
    """As sentencepiece's vocabulary has them: a token each for the bytes of pieces, a bar for a space."""
    return [
        f"<0x{piece[0]:02X}>" if len(piece) == 1 and piece[0] >= 128 else piece.decode().replace(" ", "▁")
        for piece in pieces
    ]


def spaceless(pieces: list[bytes]) -> list[str]:
    """As sentencepiece decodes one token at a time."""
    return [piece.decode("utf-8", "replace").removeprefix(" ") for piece in pieces]


Mode = Callable[[Asked], dict[str, Any]]
_IMPOSSIBLE_DOC = 4  # of which the wrong choices cannot be


def _of(show: Callable[[list[bytes]], list[str]], **changes: Any) -> Mode:
    return lambda asked: asked.choice(show, **changes)


def _sentencepiece(asked: Asked, show: Callable[[list[bytes]], list[str]]) -> dict[str, Any]:
    asked.pieces = [
        part
        for piece in asked.pieces
        for part in ([piece] if piece.isascii() else (bytes([byte]) for byte in piece))
    ]
    return asked.choice(show, text_offset=...)


def _impossible(value: Any) -> Mode:
    def mode(asked: Asked) -> dict[str, Any]:
        one = asked.choice(whole)
        if asked.doc is not None and not asked.right:
            one["logprobs"]["token_logprobs"] = [value] * len(asked.all)
        return one

    return mode


def _ends(generated: Sequence[bytes]) -> Mode:
    def mode(asked: Asked) -> dict[str, Any]:
        asked.generated = list(generated)
        return asked.choice(hidden)

    return mode


def _offsets(count: Callable[[Asked, int], int]) -> Mode:
    return lambda asked: asked.choice(replaced, text_offset=[count(asked, n) for n in range(len(asked.all))])


def _merged(only: frozenset[int] | None) -> Mode:
    """One token across the boundary, of some docs or all."""

    def mode(asked: Asked) -> dict[str, Any]:
        at = asked.prompt.rfind("\nAnswer:") + len("\nAnswer:")
        length = 0
        for n, piece in enumerate(asked.pieces):
            if length == len(asked.prompt[:at].encode()) and (only is None or asked.doc in only):
                asked.pieces[n - 1 : n + 1] = [asked.pieces[n - 1] + piece]
                break
            length += len(piece)
        return asked.choice(whole)

    return mode


def _content(with_bytes: bool) -> Mode:
    def mode(asked: Asked) -> dict[str, Any]:
        one = asked.choice(replaced)
        lists = one["logprobs"]
        one["logprobs"] = {
            "content": [
                {
                    "token": token,
                    "logprob": value,
                    "bytes": list(piece) if with_bytes else None,
                    "top_logprobs": [{"token": token, "logprob": value}],
                }
                for token, value, piece in zip(
                    lists["tokens"], lists["token_logprobs"], asked.all, strict=True
                )
            ]
        }
        return one

    return mode


def _special(*tokens: str) -> Mode:
    def mode(asked: Asked) -> dict[str, Any]:
        one = asked.choice(replaced)
        lists = one["logprobs"]
        lists["tokens"][:0] = tokens
        lists["token_logprobs"][:1] = [None, *[-3.0] * len(tokens)]
        lists["top_logprobs"][:1] = [None, *[{"x": -1.0}] * len(tokens)]
        lists["text_offset"] = [-1] * len(lists["tokens"])
        return one

    return mode


def _without_prompt(asked: Asked) -> dict[str, Any]:
    one = asked.choice(whole)
    one["logprobs"] = {name: list_[-1:] for name, list_ in one["logprobs"].items()}
    return one


MODES: Mapping[str, Mode] = {
    "plain": _of(whole),
    "replaced": _of(replaced),
    "hidden": _of(hidden),
    "escaped": _of(escaped),
    "sentencepiece": lambda asked: _sentencepiece(asked, vocabulary),
    "spaceless": lambda asked: _sentencepiece(asked, spaceless),
    "no_offsets": _of(replaced, text_offset=...),
    "offsets_in_bytes": _offsets(lambda asked, n: len(b"".join(asked.all[:n]))),
    "offsets_in_utf16": _offsets(
        lambda asked, n: len(b"".join(asked.all[:n]).decode("utf-8", "ignore").encode("utf-16-le")) // 2
    ),
    "offsets_as_shown": _offsets(lambda asked, n: len("".join(replaced(asked.all[:n])))),
    "offsets_from_the_answer": _offsets(lambda asked, n: n - len(asked.pieces)),
    "content": _content(with_bytes=False),
    "content_with_bytes": _content(with_bytes=True),
    "special": _special("<|begin_of_text|>"),
    "special_two": _special("<s>", "<s>"),
    "special_blank": _special(""),
    "ends": _ends([]),
    "ends_in_a_character": _ends([b"\xe5", b"\xa5", b"\xbd"]),
    "generates_three": _ends([b" the", b" sky", b"."]),
    "text_null": _of(replaced, text=None),
    "impossible_null": _impossible(None),
    "impossible_text": _impossible("NaN"),
    "impossible_number": _impossible(-9999.0),
    "tops_null": _of(whole, top_logprobs=None),
    "tops_absent": _of(whole, top_logprobs=...),
    "merged": _merged(None),
    "merged_twice": _merged(frozenset({0, 5})),
    "no_echo": _without_prompt,
    "no_logprobs": lambda asked: {
        "index": 0,
        "text": asked.prompt,
        "logprobs": None,
        "finish_reason": "stop",
    },
    "all_null": lambda asked: asked.choice(whole, token_logprobs=[None] * len(asked.all)),
    "token_ids": lambda asked: asked.choice(lambda pieces: [f"token_id:{n}" for n in range(len(pieces))]),
}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    docs: Sequence[Mapping[str, Any]] = ()
    calls: Counter[str]

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        prompt, mode = asked["prompt"], self.path.split("/")[1]
        self.calls[mode] += 1
        place = next((n for n, doc in enumerate(self.docs) if prompt.startswith(doc["query"])), None)
        doc = None if place is None else self.docs[place]
        right = doc is None or prompt.endswith(f" {doc['choices'][doc['gold']]}")
        one = MODES[mode](Asked(prompt, right, place))
        data = json.dumps({"choices": [one], "usage": {"prompt_tokens": 5, "completion_tokens": 1}}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def echoing(docs: Sequence[Mapping[str, Any]] = DOCS) -> Iterator[tuple[str, Counter[str]]]:
    """Serve ``<root>/<mode>/v1/completions``; yield the root and the calls by mode."""
    calls: Counter[str] = Counter()
    handler = type("Handler", (_Handler,), {"docs": docs, "calls": calls})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", calls
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def installation(
    folder: Path,
    urls: Mapping[str, str],
    docs: Sequence[Mapping[str, Any]] = DOCS,
    tasks: Sequence[str] = ("echoes", "greedy"),
) -> Path:
    """A configuration with a supplier per mode."""
    (folder / "mine").mkdir(parents=True)
    (folder / "mine/echoes.yaml").write_text(TASK, encoding="utf-8")
    (folder / "mine/greedy.yaml").write_text(GREEDY_TASK, encoding="utf-8")
    rows = "".join(json.dumps(doc) + "\n" for doc in docs)
    (folder / "docs.jsonl").write_text(rows, encoding="utf-8")
    suppliers = [
        {"address": mode, "base_url": url, "model": "m", "api": "completions"} for mode, url in urls.items()
    ]
    task = {"data": {"test": "docs.jsonl"}, "samples": "all"}
    settings = {
        "suppliers": suppliers,
        "tasks": [{"name": name, **task} for name in tasks],
        "task_paths": ["mine"],
        "sampling": {"epoch_seed": 7},
        "planning": {"occasions_minutes": [0, 0.06, 0.5, 3, 6, 12, 18]},
    }
    path = folder / "testbench.yaml"
    path.write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
    return path


def measured(path: Path, worker: FrameworkWorker) -> Workspace:
    """Open an installation, ask everybody everything and score what was answered."""
    workspace = Workspace(load_config(path))
    workspace.worker = worker
    refresh_roster(workspace)
    for spec in workspace.specs:
        refresh_dataset(workspace, spec)
        refresh_prompts(workspace, spec)
    keys = [f"{supplier.address}@external" for supplier in workspace.config.settings.suppliers]
    relay_due(workspace, keys)
    score_new(workspace, keys)
    return workspace
