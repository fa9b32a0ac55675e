"""What the tests of the program share: running `vm` on small guest programs. They need no kernel package.

Environment: VM is the program, GUESTS_DIR has the images of tests/guests.
"""
import json
import os
import pathlib
import subprocess
import tempfile
import time
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
VM = os.environ.get("VM", str(ROOT / "build/release/src/cli/vm"))
GUESTS = pathlib.Path(os.environ.get("GUESTS_DIR", ROOT / "build/release/tests/guests"))
USAGE, INCOMPATIBLE, CORRUPT, FAILED = 2, 4, 6, 8
PATIENCE = 120 * (10 if os.environ.get("NESTOR_LONG") else 1)


class VmTest(unittest.TestCase):
    """A test with a scratch directory, which holds its store and its control sockets."""

    def setUp(self):
        scratch = tempfile.TemporaryDirectory(prefix="nestor-")
        self.addCleanup(scratch.cleanup)
        self.scratch = pathlib.Path(scratch.name)
        self.store = self.scratch / "store"
        (self.scratch / "run").mkdir()
        self.environment = dict(
            os.environ, XDG_RUNTIME_DIR=str(self.scratch / "run"), NESTOR_STORE=str(self.store)
        )

    def guest(self, name, memory="16M"):
        return ["--kernel", GUESTS / f"{name}.elf", "--memory", memory]

    def vm(self, *arguments, status=0, patience=PATIENCE):
        """Runs `vm` to its end; its exit status has to be `status`. Gives the result."""
        words = [str(a) for a in arguments]
        done = subprocess.run(
            [VM, *words], stdin=subprocess.DEVNULL, capture_output=True, env=self.environment, timeout=patience
        )
        self.assertEqual(
            done.returncode, status, f"$ vm {' '.join(words)}\n{done.stdout[-2000:]!r}\n{done.stderr[-2000:]!r}"
        )
        return done

    def json(self, *arguments, status=0):
        return json.loads(self.vm(*arguments, "--json", status=status).stdout)

    def start(self, *arguments, **options):
        """Starts `vm`; it is killed at the end of the test where it still runs."""
        streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
        process = subprocess.Popen([VM, *[str(a) for a in arguments]], env=self.environment, **streams)

        def end():
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout, process.stderr):
                if stream:
                    stream.close()

        self.addCleanup(end)
        return process

    def start_counter(self, name, *arguments):
        """A guest that counts without end, once it is reachable."""
        process = self.start("run", *self.guest("counter"), "--name", name, *arguments, stdout=subprocess.DEVNULL)
        self.wait_for(lambda: name in [m["name"] for m in self.json("ps")])
        return process

    def wait_for(self, true, seconds=PATIENCE):
        end = time.monotonic() + seconds
        while not true():
            self.assertLess(time.monotonic(), end, "waited in vain")
            time.sleep(0.05)

    def sockets(self):
        return [p.name for p in self.scratch.rglob("*") if p.is_socket()]
