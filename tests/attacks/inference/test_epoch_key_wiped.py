"""Attack: reading a server's memory for the key of an epoch that is over. Expected: nothing of it is there.

The library holds the key, in memory that we cannot overwrite; it does so itself when the key is let go. The
control finds it before.
"""

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.server.needles import Needles
from tests.support.records import some_bytes

SERVER = """
import sys
from pathlib import Path
from antefix.crypto import hpke
from antefix_server.grants.epochs import Epochs

epochs = Epochs(Path(sys.argv[1]))
(id,) = (bytes.fromhex(path.stem) for path in (Path(sys.argv[1]) / "epochs").iterdir())
key = epochs.find(id, 0.0)
sealed = hpke.SUITE.encrypt(bytes(32), hpke.public_key(key.public), info=b"bound")
key.open(sealed, b"bound").wipe()
print("opened", flush=True)
sys.stdin.readline()
assert epochs.destroy_all() == 1
print("over", flush=True)
sys.stdin.readline()
"""


def parts_of(seed: bytes) -> dict[bytes, str]:
    """What the key is in memory: both its seeds, and what is computed with (FIPS 203, algorithm 13)."""
    expanded = hashlib.shake_256(seed).digest(96)
    noise = hashlib.sha3_512(expanded[:32] + bytes([3])).digest()[32:]
    found = {seed: "seed", expanded[:32]: "d", expanded[32:64]: "z", expanded[64:]: "X25519"}
    for number in range(3):
        drawn = np.frombuffer(hashlib.shake_256(noise + bytes([number])).digest(128), np.uint8)
        bits = np.unpackbits(drawn, bitorder="little").astype(int).reshape(256, 4)
        transformed = ntt(list((bits[:, 0] + bits[:, 1] - bits[:, 2] - bits[:, 3]) % 3329))
        found[np.array(transformed, "<u2").tobytes()[:64]] = f"s{number}"
    return found


def ntt(values: list[int]) -> list[int]:
    """FIPS 203, algorithm 9."""
    at, size = 1, 128
    while size >= 2:
        for start in range(0, 256, 2 * size):
            zeta = pow(17, int(f"{at:07b}"[::-1], 2), 3329)
            at += 1
            for one in range(start, start + size):
                turned = zeta * values[one + size] % 3329
                values[one + size], values[one] = (values[one] - turned) % 3329, (values[one] + turned) % 3329
        size //= 2
    return values


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="memory is read under /proc")
def test_of_an_epoch_that_is_over_no_key_is_in_memory(tmp_path: Path) -> None:
    seed = some_bytes("the seed of an epoch", 32)
    (tmp_path / "epochs").mkdir()
    content = b"ANTEFIXE" + bytes(16) + (2**40).to_bytes(8, "big") + seed
    (tmp_path / "epochs" / f"{bytes(16).hex()}.key").write_bytes(content)
    parts = parts_of(seed)
    needles = Needles(parts)
    with subprocess.Popen(
        [sys.executable, "-c", SERVER, str(tmp_path)], stdin=-1, stdout=-1, text=True
    ) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        assert server.stdout.readline() == "opened\n"
        alive = {parts[one] for one in needles.in_memory(server.pid)}
        server.stdin.write("go on\n")
        server.stdin.flush()
        assert server.stdout.readline() == "over\n"
        left = {parts[one] for one in needles.in_memory(server.pid)}
        server.communicate("end\n", 20)
    assert server.returncode == 0
    assert {"d", "z", "X25519", "s0", "s1", "s2"} <= alive
    assert left == set()
