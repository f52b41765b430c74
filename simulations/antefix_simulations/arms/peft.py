"""The same work done by Hugging Face PEFT, as its documentation does it.

Each peer has modules of its own around the base's very weights: transformers' own attention, its own
cache, and what PEFT adds.
"""

from __future__ import annotations

import copy
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from peft import LoraConfig, PeftModel, PrefixTuningConfig, get_peft_model
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel

from antefix import FrozenBase, Prefix
from antefix.data.tokenization import Row
from antefix.errors import InvalidArgument
from antefix.model.rms_norm import restore_norms
from antefix.peft import export_peft


def own_copy(base: FrozenBase) -> PreTrainedModel:
    """The base's modules once more, over the same weights, all as transformers has them."""
    shared = {id(parameter): parameter for parameter in base.model.parameters()}
    model: PreTrainedModel = copy.deepcopy(base.model, shared)
    model.set_attn_implementation("sdpa")
    restore_norms(model)
    # None of the base's own: every arm makes the same number of tokens, by the same search.
    model.generation_config = GenerationConfig(pad_token_id=0)
    return model


def causal_copy(base: FrozenBase) -> PreTrainedModel:
    """That of a base whose prefixes PEFT has.

    Raises:
        InvalidArgument: an encoder-decoder.
    """
    if base.is_encoder_decoder:
        raise InvalidArgument(
            f"base {base.name!r} is an encoder-decoder, which PEFT cannot give the same prefixes",
            "bench a causal base",
        )
    return own_copy(base)


class PeftTraining:
    """PEFT's prefix tuning on one base that is used again for each user."""

    def __init__(self, base: FrozenBase, length: int) -> None:
        config = PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=length)
        with quiet():
            self._model: Any = get_peft_model(causal_copy(base), config).to(base.device)
        encoder: Any = self._model.prompt_encoder["default"]
        self._weight: Tensor = encoder.embedding.weight

    def train(self, rows: Sequence[Row], *, passes: int, batch_size: int) -> float:
        """Train a fresh prefix on one user's rows, in their order; the last batch's loss."""
        torch.nn.init.normal_(self._weight.data)
        return self.steps([row for _ in range(passes) for row in rows], batch_size)

    @property
    def values(self) -> NDArray[np.float32]:
        """A copy of the prefix as PEFT has it."""
        values: NDArray[np.float32] = self._weight.detach().cpu().numpy().copy()
        return values

    def begin(self, values: NDArray[np.float32]) -> None:
        """Go on from a prefix."""
        self._weight.data.copy_(torch.from_numpy(values))

    def steps(self, rows: Sequence[Row], batch_size: int) -> float:
        """One pass over rows in their order; the last batch's loss."""
        optimizer = torch.optim.AdamW([self._weight], lr=5e-3)
        loss = torch.tensor(torch.nan)
        for batch in batches(rows, batch_size, self._weight.device):
            loss = self._model(**batch).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        return loss.item()


class PeftPrefixes:
    """PEFT with one prefix per user, of which one at a time is active."""

    def __init__(self, base: FrozenBase, prefixes: Mapping[str, Prefix]) -> None:
        self._names = _adapter_names(prefixes)
        self._device = base.device
        model: Any = causal_copy(base)
        with tempfile.TemporaryDirectory() as work, quiet():
            for user, name in self._names.items():
                folder = export_peft(prefixes[user], base, Path(work) / name)
                if isinstance(model, PeftModel):
                    model.load_adapter(str(folder), adapter_name=name)
                else:
                    model = PeftModel.from_pretrained(model, folder, adapter_name=name)
        self._model: Any = model.to(base.device).eval()

    def generate(self, user: str, prompt: Sequence[int], new_tokens: int) -> list[int]:
        """Greedy tokens of one user."""
        self._model.set_adapter(self._names[user])
        return _greedy(self._model, [prompt], self._device, new_tokens)[0]


class PeftLora:
    """PEFT with one LoRA adapter per user, all in one batch. Their values are random.

    Attributes:
        rank: of each adapter.
        numbers: values in each adapter.
    """

    def __init__(self, base: FrozenBase, users: Sequence[str], numbers: int) -> None:
        """Choose the rank that comes nearest to `numbers` values per adapter."""
        self._names = _adapter_names(users)
        self._device = base.device
        first, *others = self._names.values()
        with quiet():
            per_rank: int = get_peft_model(causal_copy(base), _lora(1)).get_nb_trainable_parameters()[0]
            self.rank = max(1, round(numbers / per_rank))
            self.numbers = self.rank * per_rank
            self._model: Any = get_peft_model(causal_copy(base), _lora(self.rank), adapter_name=first)
        for name in others:
            self._model.add_adapter(name, _lora(self.rank))
        self._model.to(base.device).eval()

    def generate(
        self, users: Sequence[str], prompts: Sequence[Sequence[int]], new_tokens: int
    ) -> list[list[int]]:
        """Greedy tokens of many users."""
        names = [self._names[user] for user in users]
        return _greedy(self._model, prompts, self._device, new_tokens, adapter_names=names)


@contextmanager
def quiet() -> Iterator[None]:
    """Hide that PEFT 0.21 asks transformers 5.23 for a property by its old name."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        yield


def _adapter_names(users: Iterable[str]) -> dict[str, str]:
    """A name for each user's adapter; PEFT makes modules of them, whose names take no dots."""
    return {user: f"user{number}" for number, user in enumerate(users)}


def _lora(rank: int) -> LoraConfig:
    """PEFT's own choice of layers; random values, as a trained adapter is no zero."""
    return LoraConfig(task_type="CAUSAL_LM", r=rank, lora_alpha=2 * rank, init_lora_weights=False)


def batches(rows: Sequence[Row], size: int, device: torch.device) -> Iterator[dict[str, Tensor]]:
    """Batches padded to their longest row; the loss counts neither prompt nor padding."""
    for start in range(0, len(rows), size):
        part = rows[start : start + size]
        texts = [[*row.inputs, row.targets[-1]] for row in part]
        longest = max(len(text) for text in texts)
        ids = torch.zeros(len(part), longest, dtype=torch.long)
        mask, labels = torch.zeros_like(ids), torch.full_like(ids, -100)
        for number, (row, text) in enumerate(zip(part, texts, strict=True)):
            ids[number, : len(text)] = torch.tensor(text)
            mask[number, : len(text)] = 1
            labels[number, len(text) - len(row.targets) : len(text)] = torch.tensor(row.targets)
        named = {"input_ids": ids, "attention_mask": mask, "labels": labels}
        yield {name: value.to(device) for name, value in named.items()}


@torch.inference_mode()
def _greedy(
    model: Any, prompts: Sequence[Sequence[int]], device: torch.device, new_tokens: int, **more: Any
) -> list[list[int]]:
    """Exactly `new_tokens` tokens for each prompt, which are padded on the left."""
    longest = max(len(prompt) for prompt in prompts)
    ids = torch.zeros(len(prompts), longest, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for number, prompt in enumerate(prompts):
        ids[number, longest - len(prompt) :] = torch.tensor(prompt)
        mask[number, longest - len(prompt) :] = 1
    output = model.generate(
        input_ids=ids.to(device),
        attention_mask=mask.to(device),
        do_sample=False,
        max_new_tokens=new_tokens,
        **more,
    )
    return [list(row) for row in output[:, longest:].tolist()]
