"""What pins a base: one digest of its stored tensors, forward pass settings and tokenizer.

It is the SHA-256 of one JSON text (sorted keys, no spaces, ASCII):

    {"config": {...}, "format": "antefix-base-1",
     "tensors": [[name, dtype, shape, sha256], ...], "tokenizer": sha256}

Tensors are sorted by name, so neither the order in a file nor the number of shards matters. Settings
that do not change the forward pass are left out (`_IGNORED`); what is not listed there counts, since a
needless refusal is better than a prefix on the wrong base. The chat template is left out too: it is text
that an application puts into a prompt, changes no token's meaning, and is edited in place by publishers,
which would orphan every prefix.
"""

import hashlib
import itertools
import json
from collections.abc import Iterable, Mapping

from torch import Tensor, uint8

from antefix.errors import BaseDamaged, InvalidArgument
from antefix.loading.stored_tensors import StoredTensor

_FORMAT = "antefix-base-1"

# Where it came from, and how it was stored.
_PROVENANCE = {
    "_commit_hash",
    "_model_name_or_path",
    "_name_or_path",
    "architectures",
    "auto_map",
    "dtype",
    "name_or_path",
    "torch_dtype",
    "transformers_version",
}
# How it is run: what is returned and cached, and by which kernel.
_RUNNING = {
    "_attn_implementation",
    "_attn_implementation_autoset",
    "_attn_implementation_internal",
    "_experts_implementation",
    "_experts_implementation_internal",
    "attn_implementation",
    "gradient_checkpointing",
    "output_attentions",
    "output_hidden_states",
    "return_dict",
    "torchscript",
    "use_cache",
    "use_return_dict",
}
# Labels of classifiers, and defaults of generation, which older configs carry along. top_k, top_p,
# temperature and max_length are not here: routers of experts and position tables use these words, too.
_OTHER_TASKS = {
    "bad_words_ids",
    "diversity_penalty",
    "do_sample",
    "early_stopping",
    "exponential_decay_length_penalty",
    "finetuning_task",
    "id2label",
    "label2id",
    "length_penalty",
    "no_repeat_ngram_size",
    "num_beam_groups",
    "num_beams",
    "num_labels",
    "num_return_sequences",
    "problem_type",
    "repetition_penalty",
    "task_specific_params",
    "typical_p",
}
_IGNORED = frozenset(_PROVENANCE | _RUNNING | _OTHER_TASKS)

# As the safetensors format names them, so that a model in memory and its file can agree.
_DTYPE_NAMES = {
    "torch.float64": "F64",
    "torch.float32": "F32",
    "torch.float16": "F16",
    "torch.bfloat16": "BF16",
    "torch.int64": "I64",
    "torch.int32": "I32",
    "torch.int16": "I16",
    "torch.int8": "I8",
    "torch.uint8": "U8",
    "torch.bool": "BOOL",
}


def fingerprint(tensors: Iterable[StoredTensor], config: Mapping[str, object], tokenizer: str) -> str:
    """Return the 64 hex digits that pin a base.

    Raises:
        BaseDamaged: two tensors of one name.
        InvalidArgument: a setting that JSON cannot hold, so its value cannot be pinned.
    """
    ordered = sorted(tensors)
    for tensor, following in itertools.pairwise(ordered):
        if tensor.name == following.name:
            raise BaseDamaged(
                f"the base holds two tensors named {tensor.name!r}", "fetch or convert it again"
            )
    return digest_of(
        {
            "format": _FORMAT,
            "tensors": [[t.name, t.dtype, list(t.shape), t.sha256] for t in ordered],
            "config": _canonical(config),
            "tokenizer": tokenizer,
        }
    )


def model_fingerprint(tensors: Mapping[str, Tensor], config: Mapping[str, object], tokenizer: bytes) -> str:
    """Return the fingerprint of a model in memory.

    It is that of a saved folder only if the folder stores the same tensors (tied ones are stored once),
    the same settings, and `tokenizer` as its `tokenizer.json`.

    Args:
        tensors: the state dict, in the dtype the weights came in.
        config: the settings, as in config.json.
        tokenizer: any bytes that pin the tokenizer.
    """
    stored = [
        StoredTensor(
            name,
            _DTYPE_NAMES.get(str(tensor.dtype), str(tensor.dtype)),
            tuple(tensor.shape),
            hashlib.sha256(tensor.detach().cpu().reshape(-1).view(uint8).numpy().data).hexdigest(),
        )
        for name, tensor in tensors.items()
    ]
    return fingerprint(stored, config, hashlib.sha256(tokenizer).hexdigest())


def digest_of(value: object) -> str:
    """Return the SHA-256 of a value's canonical JSON text."""
    try:
        text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    except (TypeError, ValueError) as error:
        hint = "pass settings as they are in config.json"
        raise InvalidArgument(f"the base's settings hold what JSON cannot: {error}", hint) from error
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def _canonical(value: object) -> object:
    """Drop settings without effect, at every depth, and write whole numbers one way (1e4 is 10000)."""
    if isinstance(value, Mapping):
        return {str(key): _canonical(item) for key, item in value.items() if key not in _IGNORED}
    if isinstance(value, list | tuple):
        return [_canonical(item) for item in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value
