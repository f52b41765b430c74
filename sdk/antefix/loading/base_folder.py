"""A folder that holds a base in transformers' layout: which files count, and their fingerprint."""

import json
from collections.abc import Iterator
from pathlib import Path

from antefix.errors import BaseDamaged, BaseNotFound
from antefix.loading.fingerprint import digest_of, fingerprint
from antefix.loading.stored_tensors import StoredTensor, file_digest, read_safetensors

_WEIGHTS = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
# Read only where there is no tokenizer.json.
_VOCABULARIES = (
    "encoder.json",
    "merges.txt",
    "sentencepiece.bpe.model",
    "source.spm",
    "spiece.model",
    "spm.model",
    "target.spm",
    "tokenizer.model",
    "vocab.bpe",
    "vocab.json",
    "vocab.txt",
)


def folder_fingerprint(folder: Path) -> str:
    """Return the fingerprint of a base in a folder.

    Raises:
        BaseNotFound: no safetensors weights, no config.json or no tokenizer in it.
        BaseDamaged: a file of it cannot be read.
    """
    weights = weight_files(folder)
    config = _read_json(folder / "config.json")
    if "transformers_weights" in config:  # transformers would read another file than the one hashed here
        raise BaseNotFound(
            f"config.json of {folder} names its weights itself ({config['transformers_weights']!r})",
            f"remove transformers_weights from it and name the file {_WEIGHTS}",
        )
    tokenizer = _tokenizer_digest(folder)
    return fingerprint(_tensors(weights), config, tokenizer)


def weight_files(folder: Path) -> list[Path]:
    """Return the files that transformers reads the weights from, in its order of preference.

    Raises:
        BaseNotFound: there are none, or only pickled ones.
        BaseDamaged: a shard is missing.
    """
    if (folder / "adapter_config.json").exists():
        # transformers would load the base that it names, and the adapter on top.
        raise BaseNotFound(
            f"{folder} holds an adapter, not a base", "merge the adapter into its base and save that"
        )
    if not (folder / _WEIGHTS).is_file() and not (folder / _INDEX).is_file():
        raise _no_weights(folder)
    if not (folder / "config.json").is_file():
        raise BaseNotFound(
            f"{folder} holds weights but no config.json", "save the model with save_pretrained"
        )
    if (folder / _WEIGHTS).is_file():
        return [folder / _WEIGHTS]
    return _shards(folder)


def _shards(folder: Path) -> list[Path]:
    table = _read_json(folder / _INDEX).get("weight_map")
    if not isinstance(table, dict) or not table:
        raise BaseDamaged(f"{folder / _INDEX} has no weight_map", "save or fetch the base again")
    names = sorted({str(name) for name in table.values()})
    for name in names:
        # A path in the index could name a file outside of the folder.
        if Path(name).name != name or not (folder / name).is_file():
            raise BaseDamaged(
                f"{_INDEX} names {name!r}, which is not in {folder}", "save or fetch the base again"
            )
    return [folder / name for name in names]


def _no_weights(folder: Path) -> BaseNotFound:
    pickled = [path.name for pattern in _PICKLED for path in sorted(folder.glob(pattern))]
    others = sorted(path.name for path in folder.glob("*.safetensors"))
    if others:
        return BaseNotFound(
            f"{folder} holds {others[0]}, but neither {_WEIGHTS} nor {_INDEX}",
            "save the model with save_pretrained, or rename the file if it is the whole model",
        )
    if pickled:
        return BaseNotFound(
            f"{folder} holds its weights only as {pickled[0]}, a pickled file, and nothing is ever unpickled",
            "convert it once where you trust it: load it with transformers and call save_pretrained",
        )
    return BaseNotFound(f"{folder} holds no {_WEIGHTS}", "name a folder that save_pretrained has written")


def _tensors(files: list[Path]) -> Iterator[StoredTensor]:
    for path in files:
        yield from read_safetensors(path)


def _tokenizer_digest(folder: Path) -> str:
    path = folder / "tokenizer.json"
    if path.is_file():
        return file_digest(path)
    vocabularies = [name for name in _VOCABULARIES if (folder / name).is_file()]
    if vocabularies:
        return digest_of([[name, file_digest(folder / name)] for name in vocabularies])
    if (folder / "tokenizer_config.json").is_file():  # byte tokenizers (ByT5) have no vocabulary
        return digest_of(_read_json(folder / "tokenizer_config.json").get("tokenizer_class"))
    raise BaseNotFound(f"{folder} holds no tokenizer", "save it there: tokenizer.save_pretrained(folder)")


def _read_json(path: Path) -> dict[str, object]:
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise BaseDamaged(f"{path} cannot be read: {error}", "save or fetch the base again") from error
    if not isinstance(value, dict):
        raise BaseDamaged(
            f"{path} holds {type(value).__name__}, not an object", "save or fetch the base again"
        )
    return value
