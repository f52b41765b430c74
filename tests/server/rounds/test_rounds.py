"""Rounds with real devices on a tiny base, Flower's own rules, and a grid in memory."""

from pathlib import Path

import numpy as np
import pytest
from flwr.app import Message
from flwr.serverapp.strategy import FedAvg, FedAvgM, Krum, QFedAvg, Strategy

from antefix import Prefix, score
from antefix.errors import InvalidArgument
from antefix.rounds import Round, Update
from antefix_server.errors import TooFewUsers, VaultBusy, VaultDamaged
from antefix_server.rounds.config import RoundConfig
from antefix_server.rounds.privacy import Privacy
from antefix_server.rounds.runner import RoundRunner
from antefix_server.rounds.server_optimizer import ROBUST
from antefix_server.rounds.shared_prefix import SharedVector
from tests.support.server.rounds import Device, base, replied, rig, sealed_in, signed, texts

pytestmark = pytest.mark.slow

PLAN = RoundConfig(num_server_rounds=3, min_users=3, clip=5.0, steps=4, learning_rate=2e-2, round_timeout_s=5)


def values(content: bytes) -> np.ndarray:
    return SharedVector.of(content).values


def test_three_rounds_lower_everybodys_loss(tmp_path: Path) -> None:
    host, grid = rig(4)
    RoundRunner(FedAvg(), host, PLAN, tmp_path).run(grid)
    assert [one.version for one in host.releases] == [1, 2, 3, 4]
    assert host.promoted == [4]
    before, after = Prefix.from_bytes(host.prefixes[1]), Prefix.from_bytes(host.prefixes[4])
    mine = [text for user in range(1, 5) for text in texts(user)]
    assert score(base(), mine, after) < score(base(), mine, before) - 0.05
    assert {device.asked for device in grid.devices.values()} == {3}
    assert not list((tmp_path / "rounds").glob("state*"))


def test_what_crosses_is_sealed_and_says_nothing(tmp_path: Path) -> None:
    """The answers are of one size, and no two alike; nothing else is in them."""
    host, grid = rig(3)
    seen: list[Message] = []
    for device in grid.devices.values():
        device.forge = lambda _, reply: kept(seen, reply)
    RoundRunner(FedAvg(), host, PLAN, tmp_path).run(grid)
    sealed = [sealed_in(one) for one in seen]
    assert len({len(one) for one in sealed}) == 1
    assert len(set(sealed)) == 9
    assert all(dict(one.content.metric_records["metrics"]) == {"num-examples": 1} for one in seen)


def kept(seen: list[Message], reply: Message) -> Message:
    seen.append(reply)
    return reply


@pytest.mark.parametrize("kind", ROBUST.values(), ids=lambda kind: kind.__name__)
def test_rules_that_need_every_update_get_them(kind: type[Strategy], tmp_path: Path) -> None:
    host, grid = rig(4)
    plan = RoundConfig(num_server_rounds=1, min_users=3, steps=2, round_timeout_s=5)
    RoundRunner(kind(), host, plan, tmp_path).run(grid)
    assert not np.array_equal(values(host.prefixes[1]), values(host.prefixes[2]))


def test_rules_that_need_other_answers_are_refused(tmp_path: Path) -> None:
    host, _ = rig(1)
    with pytest.raises(InvalidArgument, match="no rule for a shared prefix"):
        RoundRunner(QFedAvg(client_learning_rate=0.1), host, PLAN, tmp_path)
    with pytest.raises(InvalidArgument, match="needs single updates"):
        RoundRunner(Krum(), host, RoundConfig(num_server_rounds=1, noise_multiplier=1.0), tmp_path)


def test_users_count_alike_whatever_they_say(tmp_path: Path) -> None:
    """One says that it has ten million texts; where the others change nothing, a third of it is left."""
    host, grid = rig(3)
    monster = grid.devices[1]
    monster.forge = lambda message, _: told(message, monster, 10**7)
    RoundRunner(FedAvg(), host, RoundConfig(num_server_rounds=1, min_users=3, steps=1), tmp_path).run(grid)
    moved = values(host.prefixes[2]) - values(host.prefixes[1])
    assert np.median(moved) == pytest.approx(0.01 / 3, rel=1e-3)


def told(message: Message, device: Device, examples: int) -> Message:
    """A long update that says so many texts are behind it."""
    statement = Round.model_validate_json(signed(message, "round").body)
    prefix = message.content.array_records["arrays"]["shared"].numpy().tobytes()
    vector = np.full(len(values(prefix)), 0.01, np.float32)
    return replied(Update(vector, examples).sealed(statement, 1, device.keys), message)


def test_too_few_release_nothing(tmp_path: Path) -> None:
    host, grid = rig(4)
    for node in (1, 2):
        grid.devices[node].forge = lambda _, __: None  # they never answer
    plan = RoundConfig(num_server_rounds=2, min_users=3, steps=1, round_timeout_s=1)
    with pytest.raises(TooFewUsers, match="2 updates count, 3 are needed"):
        RoundRunner(FedAvg(), host, plan, tmp_path).run(grid)
    assert len(host.releases) == 1


def test_stragglers_are_not_waited_for(tmp_path: Path) -> None:
    host, grid = rig(4)
    grid.devices[1].forge = lambda _, __: None
    plan = RoundConfig(num_server_rounds=1, min_users=3, steps=1, round_timeout_s=2)
    RoundRunner(FedAvg(), host, plan, tmp_path).run(grid)
    assert len(host.releases) == 2


def test_two_devices_of_one_user_count_once(tmp_path: Path) -> None:
    host, grid = rig(4)
    host.users[4] = host.users[4].__class__(4, host.users[3].user, host.users[4].signing)
    plan = RoundConfig(num_server_rounds=1, min_users=3, steps=1, round_timeout_s=5)
    RoundRunner(FedAvg(), host, plan, tmp_path).run(grid)
    assert sum(device.asked for device in grid.devices.values()) == 3


@pytest.mark.parametrize("cut", ["publish", "save"])
def test_a_run_that_is_killed_goes_on(cut: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed in the second round, before or after it was kept: three releases in the end, no round twice."""
    host, grid = rig(3)
    rounds = RoundRunner(FedAvg(), host, PLAN, tmp_path)
    owner, calls = (host, "publish") if cut == "publish" else (rounds._state, "save")
    real, seen = getattr(owner, calls), []

    def killed(*given: object) -> object:
        seen.append(given)
        if len(seen) == 2:
            raise KeyboardInterrupt
        return real(*given)

    monkeypatch.setattr(owner, calls, killed)
    with pytest.raises(KeyboardInterrupt):
        rounds.run(grid)
    monkeypatch.undo()
    RoundRunner(FedAvg(), host, PLAN, tmp_path).run(grid)
    assert len(host.releases) == 4
    asked = {device.asked for device in grid.devices.values()}
    assert asked == ({3} if cut == "publish" else {4})


def test_another_plan_begins_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host, grid = rig(3)
    with monkeypatch.context() as broken:
        broken.setattr(host, "promote", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            RoundRunner(FedAvg(), host, PLAN, tmp_path).run(grid)
    RoundRunner(FedAvg(), host, RoundConfig(num_server_rounds=1, min_users=3, steps=1), tmp_path).run(grid)
    assert len(host.releases) == 5


def test_a_rule_forgets_what_another_release_came_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host, grid = rig(3)

    def killed(_: int) -> None:
        raise KeyboardInterrupt

    def rule() -> FedAvgM:
        return FedAvgM(server_learning_rate=1.0, server_momentum=0.9)

    with monkeypatch.context() as broken:
        broken.setattr(host, "promote", killed)
        with pytest.raises(KeyboardInterrupt):
            RoundRunner(rule(), host, PLAN, tmp_path).run(grid)
    host.publish(host.prefixes[1], None, "another")
    again = RoundRunner(rule(), host, PLAN, tmp_path)
    again.run(grid)
    assert len(host.releases) == 8
    first = values(host.prefixes[6]) - values(host.prefixes[5])
    alone = values(host.prefixes[2]) - values(host.prefixes[1])
    # The order of texts differs; with the momentum of three rounds it would be more than twice as long.
    assert np.linalg.norm(first) == pytest.approx(np.linalg.norm(alone), rel=0.2)


def test_noise_is_counted_and_told(tmp_path: Path) -> None:
    host, grid = rig(3)
    privacy = Privacy(noise=0.5, delta=1e-3)
    plan = RoundConfig(
        num_server_rounds=2, min_users=3, steps=1, noise_multiplier=0.5, target_delta=1e-3, clip=0.5
    )
    RoundRunner(FedAvg(), host, plan, tmp_path).run(grid)
    told = [one.privacy for one in host.releases[1:]]
    assert [one.rounds for one in told if one] == [1, 2]
    assert [one.epsilon for one in told if one] == pytest.approx([privacy.epsilon(1), privacy.epsilon(2)])
    moved = values(host.prefixes[2]) - values(host.prefixes[1])
    assert np.std(moved) == pytest.approx(0.5 * 0.5 / 3, rel=0.4)
    RoundRunner(FedAvg(), host, plan, tmp_path).run(grid)  # a later run over the same users
    last = host.releases[-1].privacy
    assert last is not None
    assert last.epsilon == pytest.approx(privacy.epsilon(4))


def test_a_run_ends_before_it_is_not_private_any_more(tmp_path: Path) -> None:
    host, grid = rig(3)
    privacy = Privacy(noise=2.0, delta=1e-3)
    plan = RoundConfig(
        num_server_rounds=9,
        min_users=3,
        steps=1,
        noise_multiplier=2.0,
        target_delta=1e-3,
        target_epsilon=privacy.epsilon(2) + 1e-6,
    )
    RoundRunner(FedAvg(), host, plan, tmp_path).run(grid)
    assert len(host.releases) == 3


def test_a_projection_sends_less(tmp_path: Path) -> None:
    host, grid = rig(3)
    plan = RoundConfig(
        num_server_rounds=2, min_users=3, steps=4, projection_dim=32, clip=5.0, learning_rate=2e-2
    )
    RoundRunner(FedAvg(), host, plan, tmp_path).run(grid)
    change = values(host.prefixes[2]) - values(host.prefixes[1])
    assert 0 < np.linalg.norm(change) < 5.0


def test_rounds_without_noise_are_not_forgotten(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    host, grid = rig(3)
    RoundRunner(FedAvg(), host, RoundConfig(num_server_rounds=1, min_users=3, steps=1), tmp_path).run(grid)
    noisy = RoundConfig(num_server_rounds=1, min_users=3, steps=1, noise_multiplier=1.0, target_delta=1e-3)
    RoundRunner(FedAvg(), host, noisy, tmp_path).run(grid)
    assert host.releases[-1].privacy is None
    assert "no epsilon is told" in caplog.text
    bounded = RoundConfig(
        num_server_rounds=1, min_users=3, steps=1, noise_multiplier=1.0, target_delta=1e-3, target_epsilon=5.0
    )
    with pytest.raises(InvalidArgument, match="no epsilon can be kept"):
        RoundRunner(FedAvg(), host, bounded, tmp_path).run(grid)


def test_lost_accounts_and_two_runs_at_once_are_refused(tmp_path: Path) -> None:
    host, grid = rig(3)
    plan = RoundConfig(num_server_rounds=1, min_users=3, steps=1, noise_multiplier=1.0, target_delta=1e-3)
    rounds = RoundRunner(FedAvg(), host, plan, tmp_path)
    rounds.run(grid)
    with rounds._state.held(), pytest.raises(VaultBusy, match="another run"):
        RoundRunner(FedAvg(), host, plan, tmp_path).run(grid)
    (tmp_path / "rounds" / "spent.json").unlink()
    with pytest.raises(VaultDamaged, match=r"spent\.json"):
        RoundRunner(FedAvg(), host, plan, tmp_path).run(grid)


def test_coins_are_not_thrown_until_enough_are_in(tmp_path: Path) -> None:
    """With coins for a share of three, fewer than three are in nearly always; the round counts."""
    host, grid = rig(3)
    plan = RoundConfig(
        num_server_rounds=2,
        min_users=3,
        fraction_train=0.3,
        sampling="poisson",
        steps=1,
        noise_multiplier=1.0,
        target_delta=1e-3,
    )
    RoundRunner(FedAvg(), host, plan, tmp_path).run(grid)
    assert len(host.releases) == 3
