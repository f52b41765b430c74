"""Settings of rounds: each is one field, and everything else that names it is made of that field."""

import tomllib
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import Field
from typer.testing import CliRunner

from antefix.errors import InvalidArgument
from antefix_server.cli import app
from antefix_server.cli.federate import federate
from antefix_server.rounds.checkpoint import plan_digest
from antefix_server.rounds.config import RoundConfig
from antefix_server.rounds.config_docs import help_text, toml_block
from antefix_server.rounds.plan import RoundPlan
from antefix_server.rounds.privacy import Privacy
from antefix_server.rounds.server_optimizer import RULES, MeanRule, RobustRule
from antefix_simulations.settings import RunSettings

ADAPTIVE = ("fedadam", "fedyogi", "fedadagrad")
BLOCK = "[tool.flwr.app.config]\n"


class WithPatience(RoundConfig):
    """One more setting, and nothing elsewhere."""

    quiet_hours: Annotated[int, Field(ge=0, le=24)] = 8
    """Hours without rounds."""


def test_a_setting_is_one_field() -> None:
    assert toml_block(WithPatience).endswith("patience = 0\nquiet-hours = 8\n")
    shown = "quiet-hours: Hours without rounds. [whole number ≥ 0, ≤ 24, default 8]"
    assert help_text(WithPatience).endswith(shown)
    assert WithPatience.read({"quiet-hours": 3}).quiet_hours == 3
    with pytest.raises(InvalidArgument, match="quiet-hours"):
        WithPatience.read({"quiet-hours": 25})
    fedavg = WithPatience().rule
    assert plan_digest(WithPatience(), fedavg) == plan_digest(RoundConfig(), fedavg)
    assert plan_digest(WithPatience(quiet_hours=3), fedavg) != plan_digest(RoundConfig(), fedavg)


def test_the_bundle_has_the_defaults() -> None:
    """Byte for byte: devices know the bundle by its digest."""
    text = (resources.files("antefix_server") / "bundle" / "pyproject.toml").read_text()
    assert text.partition(BLOCK)[2] == toml_block(RoundConfig)


def test_the_simulated_run_has_the_defaults() -> None:
    text = (Path(__file__).parents[3] / "pyproject.toml").read_text()
    block = text.partition(BLOCK)[2].partition("\n\n")[0] + "\n"
    first, rest = block.split("\n", 1)
    assert first == 'out = "runs/flower"'
    assert rest == toml_block(RunSettings)
    assert RunSettings.read(tomllib.loads(rest)) == RunSettings()


def test_the_help_names_every_setting_and_the_options_have_the_same_defaults() -> None:
    shown = CliRunner().invoke(app, ["federate", "--help"], prog_name="antefix-server").output
    options = {"rounds", "min_users", "strategy", "epsilon"}
    for name, field in RoundConfig.model_fields.items():
        assert field.description
        word = {"num_server_rounds": "rounds", "target_epsilon": "epsilon"}.get(name, name)
        assert (f"--{word.replace('_', '-')}" if word in options else f"{field.alias}:") in shown
    defaults = federate.__defaults__
    config = RoundConfig()
    expected = (config.num_server_rounds, config.min_users, config.strategy, config.target_epsilon, None)
    assert defaults == expected


@pytest.mark.parametrize(
    ("said", "digest"),
    [
        ({}, "f5ee8b9a767411a37fceec4d6a6fac535dd7f4113cf549cee1d1dd8c98295542"),
        (
            {
                "strategy": "fedadam",
                "num-server-rounds": 7,
                "min-users": 3,
                "fraction-train": 0.5,
                "weights": "examples",
                "clip": 0.25,
                "steps": 4,
                "learning-rate": 0.01,
                "projection-dim": 32,
                "promote-every": 2,
                "patience": 3,
                "round-timeout-s": 5.0,
                "server-learning-rate": 0.2,
            },
            "e2d04dafac5330c9c937c75ba8123afec6ef016dc133ee138a36d075b8def659",
        ),
        (
            {
                "strategy": "fedavgm",
                "sampling": "poisson",
                "fraction-train": 0.25,
                "noise-multiplier": 0.8,
                "target-epsilon": 4.0,
                "target-delta": 1e-4,
            },
            "ced0689447f51afe4ed2ba791f0dd08c0da9754a8e5555d086a32c091ea629c2",
        ),
    ],
)
def test_a_run_that_an_earlier_version_began_goes_on(said: dict[str, Any], digest: str) -> None:
    config = RoundConfig.read(said)
    assert plan_digest(config, config.rule) == digest


def test_a_run_config_is_read_and_checked() -> None:
    found = RoundConfig.read({"num-server-rounds": 5, "strategy": "fedadam", "target-epsilon": 8.0})
    assert found.num_server_rounds == 5
    assert found.privacy is not None
    assert found.privacy.epsilon(5) <= 8.0 + 1e-6
    assert found.rule.name == "FedAdam"
    for name in ("noise-multiplier", "target-epsilon", "server-learning-rate", "clip"):
        with pytest.raises(InvalidArgument, match=f"'{name}'.*finite number"):
            RoundConfig.read({name: float("inf")})
    with pytest.raises(InvalidArgument, match="num-server-rounds"):
        RoundConfig.read({"num-server-rounds": 0})
    with pytest.raises(InvalidArgument, match="no-such"):
        RoundConfig.read({"no-such": 1})
    with pytest.raises(InvalidArgument, match="no strategy"):
        _ = RoundConfig.read({"strategy": "best"}).rule


def test_every_rule_by_its_name_can_be_made() -> None:
    for name in RULES:
        assert RoundConfig.read({"strategy": name}).rule.name.lower() == name


@pytest.mark.parametrize(
    ("setting", "value", "users"),
    [
        ("server-learning-rate", 0.25, (*ADAPTIVE, "fedavgm")),
        ("hostile", 3, ("krum", "multikrum", "bulyan")),
    ],
)
def test_a_setting_is_used_by_the_rule_or_refused(setting: str, value: float, users: tuple[str, ...]) -> None:
    for name in RULES:
        config = RoundConfig.read({"strategy": name, setting: value})
        if name in users:
            rule = config.rule
            if isinstance(rule, MeanRule):
                assert rule.rate == value
            elif isinstance(rule, RobustRule):
                assert getattr(rule.strategy, "num_malicious_nodes") == value  # noqa: B009
        else:
            with pytest.raises(InvalidArgument, match=f"{name!r} does not look at {setting}={value}"):
                _ = config.rule
        said = RoundConfig(strategy=name).model_dump(by_alias=True)  # Flower hands on every name
        assert RoundConfig.read(said).rule.name.lower() == name


def test_the_former_plan_warns_and_is_the_same() -> None:
    privacy = Privacy(0.5, 1e-3)
    with pytest.warns(DeprecationWarning, match="RoundConfig") as warned:
        plan = RoundPlan(rounds=2, fraction=0.5, by_examples=True, projection=8, privacy=privacy, epsilon=3.0)
    assert warned[0].filename == __file__
    assert plan == RoundConfig(
        num_server_rounds=2,
        fraction_train=0.5,
        round_timeout_s=3600.0,
        weights="examples",
        projection_dim=8,
        noise_multiplier=0.5,
        target_delta=1e-3,
        target_epsilon=3.0,
    )
    with pytest.warns(DeprecationWarning, match="RoundConfig"):
        assert RoundPlan(rounds=3, epsilon=1.0).privacy is None
