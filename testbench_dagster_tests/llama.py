"""A real llama.cpp server on loopback, with a model of random weights that is written here.

Run as a program it serves: ``python -m testbench_dagster_tests.llama PORT CONTEXT MODEL.gguf``.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from testbench_dagster_tests.servers import (
    START_SECONDS,
    ServerMissing,
    free_port,
    show_log,
    stop,
    wait_for_port,
)
from testbench_dagster_tests.tasks.layouts import REPOSITORY

_WIDTH, _HEADS, _LAYERS, _INNER = 48, 3, 2, 96
_NORMAL, _UNKNOWN, _CONTROL, _BYTE = 1, 2, 3, 6  # kinds of tokens in GGUF
_WORDS = [
    "▁",
    "▁the",
    "▁sky",
    "▁is",
    "▁blue",
    "▁Question",
    "▁Answer",
    "Question",
    "Answer",
    ":",
    "你",
    "好",
    "é",
    "😀",
]
_TEMPLATE = (
    "{% for message in messages %}<{{ message.role }}>{{ message.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def vocabulary() -> list[tuple[str, int]]:
    """Tokens with their kinds, as sentencepiece has them: every byte, so that any text can be cut."""
    letters = [chr(code) for code in range(33, 127)]
    return [
        ("<unk>", _UNKNOWN),
        ("<s>", _CONTROL),
        ("</s>", _CONTROL),
        *((f"<0x{byte:02X}>", _BYTE) for byte in range(256)),
        *((word, _NORMAL) for word in dict.fromkeys([*_WORDS, *letters])),
    ]


def write_model(path: Path, seed: int = 1, context: int = 4096) -> Path:
    """Write a model of Llama's architecture in GGUF, 0.5 MB.

    The weights are large enough that its choices at temperature 0 are no ties.

    Raises:
        ServerMissing: what writes models, or serves them, is not installed.
    """
    missing = [name for name in ("xllamacpp", "gguf") if importlib.util.find_spec(name) is None]
    if missing:
        raise ServerMissing(f"{' and '.join(missing)} not installed: pip install -e '.[llama]'")
    import gguf
    import numpy as np

    draw = np.random.default_rng(seed)
    tokens = vocabulary()
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_name("random")
    writer.add_context_length(context)
    writer.add_embedding_length(_WIDTH)
    writer.add_feed_forward_length(_INNER)
    writer.add_block_count(_LAYERS)
    writer.add_head_count(_HEADS)
    writer.add_head_count_kv(_HEADS)
    writer.add_rope_dimension_count(_WIDTH // _HEADS)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_vocab_size(len(tokens))
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([token.encode() for token, _ in tokens])
    writer.add_token_types([kind for _, kind in tokens])
    # longer tokens first, as a merge with a higher score is taken before others
    writer.add_token_scores([float(len(token)) if kind == _NORMAL else 0.0 for token, kind in tokens])
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_add_bos_token(True)
    writer.add_add_space_prefix(False)
    writer.add_chat_template(_TEMPLATE)

    def weights(name: str, *shape: int, size: float = 0.4) -> None:
        writer.add_tensor(f"{name}.weight", (draw.standard_normal(shape) * size).astype(np.float32))

    def ones(name: str) -> None:
        writer.add_tensor(f"{name}.weight", np.ones(_WIDTH, np.float32))

    weights("token_embd", len(tokens), _WIDTH, size=1.0)
    weights("output", len(tokens), _WIDTH)
    ones("output_norm")
    for layer in range(_LAYERS):
        ones(f"blk.{layer}.attn_norm")
        ones(f"blk.{layer}.ffn_norm")
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            weights(f"blk.{layer}.{name}", _WIDTH, _WIDTH)
        weights(f"blk.{layer}.ffn_gate", _INNER, _WIDTH)
        weights(f"blk.{layer}.ffn_up", _INNER, _WIDTH)
        weights(f"blk.{layer}.ffn_down", _WIDTH, _INNER)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def start(folder: Path, model: Path, port: int, context: int) -> subprocess.Popen[bytes]:
    """Start a server; it listens soon and answers 503 while it loads its model."""
    log = folder / f"llama-{port}.log"
    show_log(f"llama.cpp on port {port}", log)
    with log.open("wb") as out:
        return subprocess.Popen(
            [sys.executable, "-m", __name__, str(port), str(context), str(model)],
            cwd=REPOSITORY,
            stdout=out,
            stderr=subprocess.STDOUT,
        )


@contextmanager
def serving(folder: Path, model: Path, context: int = 4096) -> Iterator[str]:
    """Serve a model until the end of the block; yield the base URL."""
    port = free_port()
    process = start(folder, model, port, context)
    try:
        wait_for_port(port, process)
        give_up = time.monotonic() + START_SECONDS
        while httpx.get(f"http://127.0.0.1:{port}/health", timeout=START_SECONDS).status_code != 200:
            assert time.monotonic() < give_up, "the model is not loaded"
            time.sleep(0.02)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        stop(process)


def main(port: str, context: str, model: str) -> None:
    """Serve a model with one thread, until the process is ended."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = model
    params.model_alias = {"tiny"}
    params.port = int(port)
    params.n_ctx, params.n_parallel = int(context), 1
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.fit_params = False  # memory is not looked at
    server = xllamacpp.Server(params)
    print(server.listening_address, flush=True)
    while True:
        time.sleep(3600)


if __name__ == "__main__":
    main(*sys.argv[1:])
