"""Conversion of a GGUF file into a folder that transformers reads without dequantising again."""

import contextlib
import io
import json
import warnings
from collections.abc import Iterator
from pathlib import Path

from antefix.loading.fingerprint import digest_of, fingerprint
from antefix.loading.stored_tensors import read_gguf

_CONFIG_JUNK = ("_model_name_or_path", "_name_or_path", "quantization_config")
_TOKENIZER_JUNK = ("is_local", "local_files_only", "name_or_path")


def gguf_fingerprint(path: Path) -> str:
    """Return the fingerprint of a GGUF file: its quantised tensors, not what they are converted to."""
    content = read_gguf(path)
    return fingerprint(content.tensors, content.config, digest_of(content.tokenizer))


def convert(gguf: Path, folder: Path) -> None:
    """Write config.json, model.safetensors (fp32) and the tokenizer's files of `gguf` into `folder`."""
    import torch
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM, AutoTokenizer

    with _quiet():
        model = AutoModelForCausalLM.from_pretrained(
            gguf.parent, gguf_file=gguf.name, dtype=torch.float32, local_files_only=True
        )
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name, local_files_only=True)
        tensors = dict(model.state_dict())
        if model.config.tie_word_embeddings:
            del tensors["lm_head.weight"]
        folder.mkdir()
        # save_pretrained of the model refuses one that came from GGUF.
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        model.config.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    _drop(folder / "config.json", _CONFIG_JUNK)
    _drop(folder / "tokenizer_config.json", _TOKENIZER_JUNK)


def _drop(path: Path, keys: tuple[str, ...]) -> None:
    settings = json.loads(path.read_bytes())
    kept = {key: value for key, value in settings.items() if key not in keys}
    path.write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence transformers' bars and warnings within the block."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        # The bar of the dequantisation obeys no setting, only its stream.
        with warnings.catch_warnings(action="ignore"), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
