"""Progress bars and forks."""

import subprocess
import sys

from antefix.common.progress import ProgressBar

KILLED_IN_A_BAR = """
import os, signal, threading, time
from tqdm import tqdm
from antefix.common.progress import ProgressBar

theirs, ours = tqdm.get_lock(), ProgressBar.get_lock()
child = os.fork()
if child == 0:
    theirs.acquire(), ours.acquire()
    os.kill(os.getpid(), signal.SIGKILL)
os.waitpid(child, 0)
assert not theirs.locks[0].acquire(block=False)  # else this shows nothing
with ProgressBar(total=2, disable=True) as bar:
    bar.update()
with ProgressBar(total=2) as bar:
    bar.update()

holder = threading.Thread(target=lambda: (ours.acquire(), time.sleep(60)), daemon=True)
holder.start()  # a child does not have it
while ours.acquire(blocking=False):
    ours.release()
child = os.fork()
if child == 0:
    ProgressBar.get_lock().acquire()
    os._exit(0)
os.waitpid(child, 0)
print("went on", flush=True)
os._exit(0)
"""


def test_a_child_killed_in_a_bar_does_not_stop_its_parent() -> None:
    done = subprocess.run(
        [sys.executable, "-c", KILLED_IN_A_BAR], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.stdout == "went on\n", done.stderr
    assert "1/2" in done.stderr


def test_no_thread_watches_the_bars() -> None:
    with ProgressBar(total=1, disable=True):
        assert ProgressBar.monitor is None
