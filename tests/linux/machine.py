"""What the Linux tests share: running `vm` on a guest image, typing on its serial port, reading it.

Environment: VM is the program, GUESTS the directory tools/guest filled. A test file ends with main(),
which skips with a reason where one of the two is missing.
"""
import os
import pathlib
import select
import subprocess
import sys
import time
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/cli"))

import vm  # noqa: E402
from vm import PATIENCE, VM  # noqa: E402

GUESTS = pathlib.Path(os.environ.get("GUESTS", ROOT / "build/guests"))


class Serial:
    """A running `vm` whose standard input and output are the guest's serial port."""

    def __init__(self, arguments, environment):
        self.arguments = [str(a) for a in arguments]
        self.process = subprocess.Popen(
            [VM, *self.arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
        )
        self.output = b""  # everything read so far
        self.seen = 0  # how much of it expect() has passed
        self.errors = b""

    def _read(self, timeout):
        """Reads what there is; False at the end of output."""
        ready, _, _ = select.select([self.process.stdout], [], [], timeout)
        if not ready:
            return True
        data = os.read(self.process.stdout.fileno(), 65536)
        self.output += data
        return bool(data)

    def expect(self, text, patience=PATIENCE):
        """Waits until the guest has printed `text` after what was expected before."""
        wanted = text.encode()
        deadline = time.monotonic() + patience
        while wanted not in self.output[self.seen :]:
            if time.monotonic() > deadline:
                self.fail(f"waited {patience} s for {text!r}")
            if not self._read(0.2):
                self.fail(f"the program ended before it printed {text!r}")
        self.seen = self.output.index(wanted, self.seen) + len(wanted)

    def type(self, line):
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()

    def finish(self, patience=PATIENCE):
        """Reads to the end; gives the exit status."""
        deadline = time.monotonic() + patience
        while self._read(0.2):
            if time.monotonic() > deadline:
                self.fail(f"still running after {patience} s")
        self.errors += self.process.stderr.read()
        return self.process.wait(timeout=30)

    def kill(self):
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            stream.close()

    def fail(self, what):
        self.process.kill()
        self.errors += self.process.stderr.read()
        raise AssertionError(
            f"{what}\n$ vm {' '.join(self.arguments)}\n{self.output[-3000:].decode(errors='replace')}\n"
            f"{self.errors[-2000:].decode(errors='replace')}"
        )

    def lines(self):
        return self.output.decode(errors="replace").replace("\r", "").split("\n")


class VmTest(vm.VmTest):
    """A test with a scratch directory, on the images of tools/guest."""

    def guest(self, image, append="", memory="512M", cpus=1):
        """The options of `vm run` for one of our images."""
        return ["--kernel", GUESTS / "vmlinuz", "--initrd", GUESTS / f"{image}.cpio", "--memory", memory,
                "--cpus", cpus, "--append", f"console=ttyS0 quiet {append}".strip()]  # fmt: skip

    def start(self, *arguments):
        """Starts `vm` with the serial port in the hands of the test."""
        serial = Serial(arguments, self.environment)
        self.addCleanup(serial.kill)
        return serial


def main():
    for needed in (pathlib.Path(VM), GUESTS / "vmlinuz", GUESTS / "shell.cpio"):
        if not needed.exists():
            print(f"skipped: {needed} is missing: run tools/build and tools/guest")
            sys.exit(77)
    unittest.main(verbosity=2)
