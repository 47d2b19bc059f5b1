"""Law 12 when the power fails: after "done" the soup is there, before it the old one is, and nothing is torn.

A small ext4 disk in a file is cut off from its writes by ext4's own shutdown call, which drops everything that
was not made durable, at a random moment; then it is mounted again and looked at.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from checkpoints import tree
from faults import big_models, needs_root, stray, verify
from warm import Warm

from rsoup.plan import BLOCK_ELEMENTS

LOSSES = 100
EXT4_IOC_SHUTDOWN = 0x8004587D
NO_LOG_FLUSH = (2).to_bytes(4, "little")

pytestmark = [pytest.mark.long, pytest.mark.fault("H11"), needs_root]


class Disk:
    """An ext4 file system in a file, which can lose its power."""

    def __init__(self, image: Path, place: Path) -> None:
        self.image, self.place = image, place
        with open(image, "wb") as file:
            file.truncate(256 << 20)
        place.mkdir()
        if shutil.which("mkfs.ext4") is None:
            pytest.skip("mkfs.ext4 is missing")
        subprocess.run(["mkfs.ext4", "-q", "-F", str(image)], check=True)

    def mount(self) -> None:
        """Put it in its place; skips where that is not possible."""
        mount = ["mount", "-o", "loop", str(self.image), str(self.place)]
        if subprocess.run(mount, capture_output=True, check=False).returncode:
            pytest.skip("disks in files cannot be mounted here")

    def lose_power(self) -> None:
        """From now on nothing reaches the disk any more, not even what the journal of the file system holds."""
        fd = os.open(self.place, os.O_RDONLY)
        try:
            fcntl.ioctl(fd, EXT4_IOC_SHUTDOWN, NO_LOG_FLUSH)
        finally:
            os.close(fd)

    def unmount(self) -> None:
        """Take it away."""
        for _ in range(100):
            if subprocess.run(["umount", str(self.place)], capture_output=True, check=False).returncode == 0:
                return
            time.sleep(0.05)
        pytest.fail("the disk is still busy")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """A small disk, mounted."""
    made = Disk(tmp_path / "image", tmp_path / "disk")
    made.mount()
    yield made
    with contextlib.suppress(BaseException):
        made.unmount()


@pytest.fixture
def warm(tmp_path: Path) -> Iterator[Warm]:
    """A warm interpreter."""
    with contextlib.closing(Warm(tmp_path)) as interpreter:
        yield interpreter


@pytest.mark.parametrize("name", ["soup", "soup.safetensors"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_power_is_lost_at_random_moments(
    disk: Disk, warm: Warm, tmp_path: Path, name: str, overwrite: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """Old or new, whole; never torn, and never lost after the command said it was done; the next run gets through."""
    one, two = big_models(tmp_path, 4 * BLOCK_ELEMENTS)
    chance = random.Random(time.time())
    arguments = ["merge", str(one), str(two), "-o", name, "--threads", "2"]
    new, old = [*arguments, "--lambda", "1/3,2/3"], [*arguments, "--lambda", "1/2,1/2"]
    out = disk.place / name
    times = []
    for _ in range(3):
        begun = time.monotonic()
        assert warm.run(*new, "--overwrite", cwd=disk.place).code == 0
        times.append(time.monotonic() - begun)
    seconds = min(times)
    weights = out if out.is_file() else out / "model.safetensors"
    wanted = weights.read_bytes()
    said_done = kept_new = kept_old = resumed = 0
    for number in range(LOSSES // 4):
        for path in disk.place.iterdir():
            if path.name != "lost+found":
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        if overwrite:
            assert warm.run(*old, cwd=disk.place).code == 0
        before = _outputs(disk.place)
        os.sync()
        run = warm.start(*new, "--overwrite", "-q", cwd=disk.place)
        end = time.monotonic() + chance.uniform(0.0, 1.2) * seconds
        while time.monotonic() < end:
            if chance.random() < 0.02:  # somebody else's fsync commits the file system's journal early
                with open(disk.place / "other", "a") as other:
                    other.write("x")
                    other.flush()
                    os.fsync(other.fileno())
            time.sleep(0.005)
        done = run.said != ""
        disk.lose_power()
        run.send(signal.SIGKILL)
        run.wait()
        disk.unmount()
        disk.mount()

        now = _outputs(disk.place)
        said_done += done
        whole = weights.exists() and weights.read_bytes() == wanted
        if done:
            assert whole, f"loss {number}: lost after it was done"
        if whole and (name == "soup" or done):
            verify(out)
            kept_new += 1
        elif whole:  # of a single file and its manifest, the second may be missing
            kept_new += 1
        else:
            assert now == before, f"loss {number}: torn"
            kept_old += 1
        resumed += bool(stray(disk.place))
        ended = warm.run(*new, "--overwrite", "-q", cwd=disk.place)
        assert ended.code == 0, ended
        verify(out)
        assert weights.read_bytes() == wanted
    with capsys.disabled():
        print(
            f"\npower lost {LOSSES // 4} times ({name}, {'over an old one' if overwrite else 'new'}): "
            f"{kept_old} old, {kept_new} new, {said_done} of them after done; 0 torn, 0 lost; {resumed} left a .part"
        )


def _outputs(place: Path) -> dict[str, bytes]:
    """Everything on the disk that is a result."""
    return {
        name: data for name, data in tree(place).items() if name.startswith("soup") and ".rsoup-" not in name
    }
