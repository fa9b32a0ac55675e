"""Running machines for the measurements of the store: the guest `hold` on Nestor and on QEMU.

Both have the same kernel, image, memory and command line. A machine is told over its serial port to
write to some of its memory, and is saved from outside: Nestor by `vm save`, QEMU by migrating to a file,
plain or through zstd.
"""
import json
import os
import select
import socket
import subprocess
import time

PATIENCE = 600


class Failed(Exception):
    """A machine did not do what the measurement needs; the text says which and what it printed."""


class Machine:
    """What both engines have in common: a process whose standard input and output is the serial port."""

    def __init__(self, command, environment=None):
        self.process = subprocess.Popen(
            [str(word) for word in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, env=environment,
        )  # fmt: skip
        self.seen = b""

    def expect(self, text):
        end = time.monotonic() + PATIENCE
        while text.encode() not in self.seen:
            if select.select([self.process.stdout], [], [], 1)[0]:
                got = os.read(self.process.stdout.fileno(), 65536)
                self.seen += got
                if not got:
                    raise Failed(f"{self.process.args[0]} ended before {text!r}: {self.seen[-400:]!r}")
            if time.monotonic() > end:
                raise Failed(f"{self.process.args[0]} did not print {text!r}: {self.seen[-400:]!r}")
        self.seen = self.seen.partition(text.encode())[2]

    def dirty(self, mib):
        self.process.stdin.write(f"dirty {mib}\n".encode())
        self.process.stdin.flush()
        self.expect("hold dirtied")

    def close(self):
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Nestor(Machine):
    image = "hold"
    ready = "hold ready"

    def __init__(self, context, memory, hold, name="bench", options=()):
        self.name = name
        self.store = context.scratch / "store"
        self.vm = context.vm
        self.environment = environment(context)
        command = context.command("nestor", self.image, f"guest_hold={hold}", memory=memory)
        super().__init__([*command, "--name", name, "--store", self.store, *options], self.environment)
        self.expect(self.ready)

    def pause(self):
        subprocess.run([self.vm, "pause", self.name], check=True, stdout=subprocess.DEVNULL, env=self.environment)

    def seconds(self):
        """Guest time."""
        listed = subprocess.run(
            [self.vm, "ps", "--json"], capture_output=True, text=True, env=self.environment, timeout=PATIENCE
        )
        return next(m["ticks"] for m in json.loads(listed.stdout) if m["name"] == self.name) / 1e9

    def save(self, tag, *options):
        """What `vm save --json` tells, and "seconds": how long it took, seen from outside."""
        start = time.monotonic()
        done = subprocess.run(
            [self.vm, "save", self.name, "--store", self.store, "--tag", tag, "--json", *options],
            capture_output=True, text=True, env=self.environment, timeout=PATIENCE,
        )  # fmt: skip
        seconds = time.monotonic() - start
        if done.returncode != 0:
            raise Failed(f"vm save: {done.stderr[-400:]}")
        return {**json.loads(done.stdout), "seconds": seconds}


class Qemu(Machine):
    def __init__(self, context, memory, hold, extra=()):
        self.socket_path = context.scratch / f"qmp.{time.monotonic_ns()}"
        command = context.command("qemu", "hold", f"guest_hold={hold}", memory=memory)
        super().__init__([*command, "-qmp", f"unix:{self.socket_path},server=on,wait=off", *extra])
        self.qmp = None
        if not extra:
            self.expect("hold ready")

    def ask(self, verb, **arguments):
        if self.qmp is None:
            self.connect()
        return self.exchange({"execute": verb, "arguments": arguments})

    def connect(self):
        end = time.monotonic() + PATIENCE
        peer = socket.socket(socket.AF_UNIX)
        while True:
            try:
                peer.connect(str(self.socket_path))
                break
            except OSError:
                if time.monotonic() > end:
                    raise Failed("QEMU does not open its control socket") from None
                time.sleep(0.002)
        self.qmp = peer.makefile("rw")
        self.qmp.readline()
        self.exchange({"execute": "qmp_capabilities"})

    def exchange(self, request):
        self.qmp.write(json.dumps(request) + "\n")
        self.qmp.flush()
        while True:
            reply = json.loads(self.qmp.readline())
            if "return" in reply:
                return reply["return"]
            if "error" in reply:
                raise Failed(f"QEMU: {reply['error']}")

    def save(self, path, filter_command="cat"):
        """Migrates to a file and lets the machine run on: seconds, milliseconds it stood still, bytes."""
        self.ask("migrate-set-parameters", **{"max-bandwidth": 1 << 40})
        start = time.monotonic()
        self.ask("migrate", uri=f"exec:{filter_command} > {path}")
        while True:
            info = self.ask("query-migrate")
            if info["status"] == "completed":
                break
            if info["status"] == "failed" or time.monotonic() - start > PATIENCE:
                raise Failed(f"QEMU: migration {info}")
            time.sleep(0.002)
        seconds = time.monotonic() - start
        self.ask("cont")
        return {"seconds": seconds, "pauseMs": info["downtime"], "bytes": path.stat().st_size}

    def close(self):
        if self.qmp is not None:
            self.qmp.close()
        super().close()


def environment(context):
    """Control sockets of the measurements stay among themselves."""
    run = context.scratch / "run"
    run.mkdir(exist_ok=True)
    return dict(os.environ, XDG_RUNTIME_DIR=str(run))


def vm(context, *words):
    """Runs `vm` with the measurements' store to its end: its result as JSON, with "seconds" added."""
    start = time.monotonic()
    done = subprocess.run(
        [str(word) for word in (context.vm, *words, "--store", context.scratch / "store", "--json")],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
        env=environment(context), timeout=PATIENCE,
    )  # fmt: skip
    seconds = time.monotonic() - start
    if done.returncode != 0:
        raise Failed(f"vm {words[0]}: {done.stderr[-400:]}")
    told = [line for line in (done.stdout + done.stderr).splitlines() if line.startswith("{")]
    return {**(json.loads(told[-1]) if told else {}), "seconds": seconds}
