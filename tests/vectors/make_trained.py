"""Writes `trained.safetensors`: what training and greedy generation gave once, on a tiny random model.

    python -m tests.vectors.make_trained

Tensors by name: `USER.CASE.trained` are the values of a prefix, `USER.CASE.tokens` what greedy generation
gives under it. The model's numbers are made of hashes, not drawn by torch: its draws differ between machines
in their last bits. The epsilon is large for the same reason: under Adam's own, a gradient that is nothing but
rounding makes as large a step as any other.
"""

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from antefix import Example, FrozenBase, GenerationRequest, Prefix, PrefixSpec, TrainingPlan, generate, train
from tests.support import tiny_models
from tests.support.records import some_bytes

FILE = Path(__file__).parent / "trained.safetensors"
PROMPT = "The roof "
PLAN = TrainingPlan(
    max_steps=6,
    batch_size=3,
    learning_rate=0.02,
    warmup_steps=2,
    clip_norm=0.5,
    epsilon=1e-3,
    micro_batch_tokens=128,
    workers=1,
    evaluate=False,
)
USERS = {
    "ann": [Example(prompt=f"number {i}: ", completion="tile " * (i % 4 + 1) + str(i)) for i in range(8)],
    "bob": [Example(completion=f"Every house has {i} ornaments of its own.") for i in range(5)],
}
CASES: dict[str, tuple[PrefixSpec, TrainingPlan]] = {
    "stacked": (PrefixSpec(length=4), PLAN),
    "alone": (PrefixSpec(length=4), PLAN.model_copy(update={"batching": "alone"})),
    "mlp": (PrefixSpec(length=4, mlp_width=8), PLAN.model_copy(update={"max_steps": 4})),
}


def make_base() -> FrozenBase:
    """A tiny Llama whose weights are the same bits everywhere."""
    model = tiny_models.model("llama")
    with torch.no_grad():
        for name, weight in model.named_parameters():
            numbers = torch.frombuffer(bytearray(some_bytes(name, 2 * weight.numel())), dtype=torch.int16)
            spread = numbers.float().view_as(weight) / 2**15 * 0.26
            weight.copy_(1 + spread if "norm" in name else spread)
    return FrozenBase.from_model(model, tiny_models.tokenizer(), name="tiny-hashed")


def train_case(base: FrozenBase, case: str) -> dict[str, Prefix]:
    """Prefixes of both users, trained in one run."""
    trained = train(base, USERS, *CASES[case], progress=False)
    return {f"{user}.{case}.trained": one.prefix for user, one in trained.items()}


def generate_tokens(base: FrozenBase, prefix: Prefix) -> Tensor:
    """Token ids of greedy generation."""
    request = GenerationRequest(prompt=PROMPT, prefix=prefix, max_new_tokens=16, ignore_eos=True)
    (generated,) = generate(base, [request])
    return torch.tensor(generated.tokens)


def main() -> None:
    """Make it anew."""
    base, tensors = make_base(), dict[str, Tensor]()
    for case in CASES:
        for name, prefix in train_case(base, case).items():
            tensors[name] = prefix.values
            tensors[name.replace("trained", "tokens")] = generate_tokens(base, prefix)
    save_file(tensors, FILE)


if __name__ == "__main__":
    main()
