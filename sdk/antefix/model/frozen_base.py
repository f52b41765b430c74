"""The frozen base: one language model with its tokenizer, shared by everybody."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Self

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.modeling_layers import GradientCheckpointingLayer

from antefix.common.validation import require
from antefix.errors import AntefixError, BaseDamaged, BaseUnsuitable, InvalidArgument, OutOfMemory
from antefix.loading.base_folder import weight_files
from antefix.loading.source import model_fingerprint, resolve
from antefix.model import attention
from antefix.model.probe import find_head, find_layout
from antefix.model.rms_norm import replace_norms
from antefix.model.token_ids import check_special_token_ids

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class FrozenBase:
    """One frozen language model; no parameter of it ever gets a gradient.

    Attributes:
        name: what it was loaded as.
        fingerprint: 64 hex digits that pin its stored bytes; a prefix carries them.
        layout: shapes of a prefix for it.
        context: positions it can see, prefix included; None where it has no limit.
        tokenizer: the transformers tokenizer.
        model: the transformers model; change nothing in it.
    """

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *, name: str, fingerprint: str
    ) -> None:
        """Freeze `model` and probe it. Most users call `load` or `from_model`."""
        require(model, PreTrainedModel, "model")
        require(tokenizer, PreTrainedTokenizerBase, "tokenizer")
        model.requires_grad_(False)
        model.eval()
        _remove_dropout(model)
        replace_norms(model)
        self.model = model
        self.tokenizer = tokenizer
        self.name = name
        self.fingerprint = fingerprint
        try:
            model.set_attn_implementation(attention.NAME)
            self.layout, self.slot_of = find_layout(model)
            self.head = find_head(model)
            check_special_token_ids(model, tokenizer)
        except AntefixError:
            raise
        except Exception as error:  # odd settings fail in as many ways as a model has lines
            raise BaseUnsuitable(
                f"base {name!r} does not run on a few tokens: {_reason(error)}", "choose another base"
            ) from error
        self.context = _context(model)
        self.is_encoder_decoder = bool(model.config.is_encoder_decoder)
        self._positions = _Positions()
        if self.is_encoder_decoder:
            for stack in (model.get_encoder(), model.get_decoder()):
                self._positions.watch(stack)

    @classmethod
    def load(
        cls, name: str, *, device: str | torch.device = "cpu", dtype: str = "fp32", progress: bool = True
    ) -> Self:
        """Load a base by catalogue name, local folder or Hugging Face hub id.

        Args:
            name: `"smollm2-135m-q4"` (fetched once, 93 MB, then cached), a folder, or a hub id.
            device: `"cpu"`, `"cuda"` …
            dtype: `"fp32"`, `"bf16"` or `"fp16"`. Prefixes are compatible between them.
            progress: show bars on stderr.

        Raises:
            BaseNotFound, BaseUnavailable, BaseDamaged, BaseUnsuitable, InvalidArgument, OutOfMemory.
        """
        require(dtype, str, "dtype")
        if dtype not in _DTYPES:
            raise InvalidArgument(f"dtype is {dtype!r}", f"use one of {', '.join(_DTYPES)}")
        where = find_device(device)
        source = resolve(name, progress=progress)
        model, tokenizer = _read(source.folder, _DTYPES[dtype])
        try:
            model.to(where)  # type: ignore[arg-type]  # transformers wraps `to` in a decorator without types
        except torch.OutOfMemoryError:
            raise OutOfMemory(
                f"{where} has no memory left for {name}", "use a smaller dtype or base"
            ) from None
        return cls(model, tokenizer, name=name, fingerprint=source.fingerprint)

    @classmethod
    def from_model(
        cls, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *, name: str = "in memory"
    ) -> Self:
        """Take a model that is already in memory; its tensors as they are now are its fingerprint.

        Raises:
            BaseUnsuitable, InvalidArgument.
        """
        require(model, PreTrainedModel, "model")
        require(tokenizer, PreTrainedTokenizerBase, "tokenizer")
        tensors = {key: value for key, value in model.state_dict().items()}
        words = "\n".join(f"{token}\t{number}" for token, number in sorted(tokenizer.get_vocab().items()))
        fingerprint = model_fingerprint(tensors, model.config.to_diff_dict(), words.encode())
        return cls(model, tokenizer, name=name, fingerprint=fingerprint)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.head.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """The type computed in."""
        return self.head.weight.dtype

    def encode(self, ids: Tensor, positions: Tensor, backend: attention.AttentionBackend) -> Tensor:
        """Encoder output [rows, S, hidden] of token ids [rows, S] at `positions` [rows, S].

        Encoder-decoders only. As in the decoder, a row's text starts at the length of its prefix.
        """
        encoder: Any = self.model.get_encoder()
        with self._positions.set(positions):
            hidden: Tensor = encoder(input_ids=ids, antefix=backend).last_hidden_state
        return hidden

    def decode(
        self,
        ids: Tensor,
        positions: Tensor,
        backend: attention.AttentionBackend,
        encoded: Tensor | None = None,
    ) -> Tensor:
        """Last hidden state [rows, T, hidden] of token ids [rows, T].

        Args:
            ids: input tokens.
            positions: [rows, T]; the text of a row starts at the length of that row's prefix.
            backend: sees every attention call.
            encoded: encoder output, for encoder-decoders.
        """
        body: Any = self.model.get_decoder()
        if encoded is None:
            output = body(input_ids=ids, position_ids=positions, use_cache=False, antefix=backend)
        else:
            with self._positions.set(positions):
                output = body(input_ids=ids, encoder_hidden_states=encoded, use_cache=False, antefix=backend)
        hidden: Tensor = output.last_hidden_state
        return hidden

    def embed(self, ids: Tensor) -> Tensor:
        """Input vectors [..., hidden] of token ids, as the first layer takes them."""
        table: Any = self.model.get_input_embeddings()
        vectors: Tensor = table(ids)
        return vectors

    def decode_vectors(self, vectors: Tensor, positions: Tensor, backend: attention.AttentionBackend) -> None:
        """As `decode`, of input vectors [rows, T, hidden] in place of tokens; causal bases alone."""
        body: Any = self.model.get_decoder()
        body(inputs_embeds=vectors, position_ids=positions, use_cache=False, antefix=backend)

    @contextmanager
    def activation_checkpointing(self, on: bool) -> Iterator[None]:
        """Within the block, recompute each layer's activations in the backward pass, not keep them."""
        if not on:
            yield
            return
        layers: list[Any] = [m for m in self.model.modules() if isinstance(m, GradientCheckpointingLayer)]
        for layer in layers:  # these alone look at `training`; nothing in them drops anything
            layer._gradient_checkpointing_func = partial(checkpoint, use_reentrant=False)
            layer.gradient_checkpointing = layer.training = True
        try:
            yield
        finally:
            for layer in layers:
                layer.gradient_checkpointing = layer.training = False

    def __repr__(self) -> str:
        """Name, start of the fingerprint, dtype and device."""
        return f"FrozenBase({self.name!r}, {self.fingerprint[:12]}…, {self.dtype}, {self.device})"


def find_device(device: str | torch.device) -> torch.device:
    try:
        where = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise InvalidArgument(f"device is {device!r}", "use 'cpu' or 'cuda'") from error
    if where.type not in ("cpu", "cuda"):
        raise InvalidArgument(f"device is {device!r}, which nothing here was tried on", "use 'cpu' or 'cuda'")
    if where.type == "cuda" and not torch.cuda.is_available():
        raise InvalidArgument(f"device is {device!r} but this machine offers no CUDA", "use 'cpu'")
    if where.type == "cuda" and (where.index or 0) >= torch.cuda.device_count():
        raise InvalidArgument(
            f"device is {device!r} but this machine has {torch.cuda.device_count()} of them", "use 'cuda:0'"
        )
    return where


def _read(folder: Path, dtype: torch.dtype) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Model and tokenizer of a folder; safetensors only, and no code from the folder is ever run."""
    here: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    try:
        with _quiet():
            config = AutoConfig.from_pretrained(folder, **here)
            _refuse_settings(folder, config)
            tokenizer = AutoTokenizer.from_pretrained(folder, **here)
            auto = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
            here |= {"use_safetensors": True, "output_loading_info": True}
            loaded: Any = auto.from_pretrained(folder, config=config, dtype=dtype, **here)
    except AntefixError:
        raise
    except (SafetensorError, OSError, RuntimeError) as error:  # RuntimeError: weights of another shape
        raise BaseDamaged(
            f"the files in {folder} cannot be read ({_reason(error)})", "fetch them again"
        ) from error
    except Exception as error:  # an architecture that it does not know, or any odd setting
        raise BaseUnsuitable(
            f"{folder} holds no text model that transformers can run: {_reason(error)}", "choose another base"
        ) from error
    model, report = loaded
    if report["missing_keys"]:  # transformers would go on with random numbers in their place
        missing = sorted(report["missing_keys"])
        raise BaseDamaged(
            f"the files in {folder} lack {len(missing)} of the model's weights, {missing[0]} first",
            "fetch them again",
        )
    return model, tokenizer


def _refuse_settings(folder: Path, config: Any) -> None:
    """Refuse what would fail late or never end, before transformers acts on it."""
    if getattr(config, "quantization_config", None) is not None:
        raise BaseUnsuitable(
            f"{folder} is quantised (its config.json has a quantization_config)",
            "use the model's full-precision files",
        )
    names = ("num_hidden_layers", "num_layers", "num_decoder_layers", "encoder_layers", "decoder_layers")
    layers = max((n for name in names if isinstance(n := getattr(config, name, None), int)), default=0)
    tensors = 0
    for path in weight_files(folder):
        with safe_open(path, framework="pt") as file:
            tensors += len(list(file.keys()))
    if layers > tensors:  # a number with nine zeros would be built layer by layer until memory ends
        raise BaseDamaged(
            f"config.json in {folder} has {layers:,} layers, its weights {tensors:,} tensors",
            "fetch them again",
        )


def _context(model: PreTrainedModel) -> int | None:
    """Positions that the model's settings allow; None where they set no limit."""
    limit = getattr(model.config, "max_position_embeddings", None)
    if limit is None or limit == 0:
        return None
    if type(limit) is not int or limit < 0:
        raise BaseUnsuitable(
            f"its settings have max_position_embeddings {str(limit)[:20]}", "correct config.json"
        )
    return limit


def _reason(error: Exception) -> str:
    """What a library says went wrong, on one line."""
    return " ".join(str(error).split())[:300] or type(error).__name__


def _remove_dropout(model: PreTrainedModel) -> None:
    """Set every dropout to 0: the base must compute the same in training and in use, in any mode."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for word in ("dropout", "attention_dropout", "activation_dropout", "layerdrop"):
            if isinstance(getattr(module, word, None), int | float):
                setattr(module, word, 0.0)


class _Positions(threading.local):
    """Makes a decoder without a `position_ids` argument (BART) use the given positions.

    Without it the text would start at 0 on top of the prefix, unlike in generation. Per thread, since
    several micro-batches run at once.
    """

    given: Tensor | None = None

    def __deepcopy__(self, _: object) -> Self:
        """A copy of the model has these hooks, too; nobody gives it positions."""
        return self

    def watch(self, stack: nn.Module) -> None:
        table = getattr(stack, "embed_positions", None)
        if isinstance(table, nn.Module):  # T5 has relative positions, no table
            table.register_forward_pre_hook(self._replace, with_kwargs=True)
            table.register_forward_hook(self._reshape)

    @contextmanager
    def set(self, positions: Tensor) -> Iterator[None]:
        self.given = positions
        try:
            yield
        finally:
            self.given = None

    def _replace(self, _: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """Flat positions: these tables expect the same ones for all rows, in one dimension."""
        return args, kwargs if self.given is None else {**kwargs, "position_ids": self.given.flatten()}

    def _reshape(self, _: nn.Module, args: Any, output: Tensor) -> Tensor:
        return output if self.given is None else output.reshape(*self.given.shape, -1)


class _quiet:
    """Silences transformers' bars and warnings; ours say what a user needs."""

    def __enter__(self) -> None:
        from transformers.utils import logging

        self._level, self._bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
        logging.set_verbosity_error()
        logging.disable_progress_bar()

    def __exit__(self, *_: object) -> None:
        from transformers.utils import logging

        logging.set_verbosity(self._level)
        if self._bar:
            logging.enable_progress_bar()
