"""Runs the measurements of tools/bench.d; called by tools/bench, which builds first.

A measurement is a file there with TITLE, UNIT and measure(engine, context), which gives one number for
that engine ("nestor" or "qemu"). ENGINES may name fewer, LOWER_IS_BETTER defaults to True, TARGET is the
sentence of the goal. One that measures several things at once has ROWS instead, a list of (key, title,
unit, target[, lower is better]), and gives a number by key, for an engine perhaps not for every key.
Each is repeated, the engines in turn, so that what else the host does hits both; the table has medians,
the JSON every sample.
"""
import argparse
import importlib.util
import json
import pathlib
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time

from bench_machines import Failed

ROOT = pathlib.Path(__file__).resolve().parent.parent
ENGINES = ("nestor", "qemu")


class Context:
    """What a measurement works with: commands that run a guest on an engine, and ways to time them."""

    def __init__(self, vm, guests, programs, scratch):
        self.vm = vm
        self.guests = guests  # Linux and its images
        self.programs = programs  # bare-metal ones
        self.scratch = scratch
        self.kept = set()  # what measurements have made in `scratch` for their next repeat

    def command(self, engine, image, append="", memory=512, cpus=1):
        """The command line that boots `image` on `engine`: same kernel, image, memory, command line."""
        kernel, initrd = self.guests / "vmlinuz", self.guests / f"{image}.cpio"
        words = f"console=ttyS0 quiet {append}".strip()
        if engine == "nestor":
            return [self.vm, "run", "--kernel", kernel, "--initrd", initrd, "--append", words,
                    "--memory", f"{memory}M", "--cpus", str(cpus)]  # fmt: skip
        return ["qemu-system-x86_64", "-accel", "tcg", "-cpu", "max", "-m", str(memory), "-smp", str(cpus),
                "-nodefaults", "-display", "none", "-no-reboot", "-serial", "stdio",
                "-kernel", kernel, "-initrd", initrd, "-append", words]  # fmt: skip

    def user_seconds(self, command):
        """User time of a whole run, in seconds; the run has to end well."""
        before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=600
        )
        if done.returncode != 0:
            raise Failed(f"{command[0]} ended with {done.returncode}: {(done.stdout + done.stderr)[-400:]}")
        return resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before

    def seconds_between(self, command, first, last):
        """Wall time from the line that holds `first` to the one that holds `last`, and that line."""
        start = None
        tail = []
        with subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, errors="replace",
        ) as process:  # fmt: skip
            try:
                for line in process.stdout:
                    now = time.monotonic()
                    tail = [*tail[-10:], line]
                    if start is None and first in line:
                        start = now
                    elif start is not None and last in line:
                        return now - start, line
            finally:
                process.kill()
        raise Failed(f"{command[0]} did not print {last!r}: {''.join(tail)}")


def load(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def host():
    model = next(
        (line.split(":", 1)[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "?"
    )
    first_line = lambda *words: subprocess.run(words, capture_output=True, text=True).stdout.partition("\n")[0]
    return {
        "cpu": model,
        "kernel": platform.release(),
        "peer": first_line("qemu-system-x86_64", "--version"),
        "commit": first_line("git", "-C", str(ROOT), "rev-parse", "HEAD"),
    }


def rows_of(module):
    """(key, title, unit, target, lower is better) of everything a file measures."""
    if hasattr(module, "ROWS"):
        return [(*row, True)[:5] for row in module.ROWS]
    lower = getattr(module, "LOWER_IS_BETTER", True)
    return [("", module.TITLE, module.UNIT, getattr(module, "TARGET", ""), lower)]


def run_one(module, context, repeats):
    engines = getattr(module, "ENGINES", ENGINES)
    samples = {}
    for _ in range(repeats):
        for engine in engines:
            measured = module.measure(engine, context)
            for key, value in (measured if isinstance(measured, dict) else {"": measured}).items():
                samples.setdefault(key, {}).setdefault(engine, []).append(value)
    results = []
    for key, title, unit, target, lower in rows_of(module):
        medians = {engine: statistics.median(values) for engine, values in samples.get(key, {}).items()}
        both = len(medians) == 2 and medians["qemu"]
        results.append({
            "key": key,
            "title": title,
            "unit": unit,
            "lower_is_better": lower,
            "target": target,
            "samples": samples.get(key, {}),
            "median": medians,
            "ratio": medians["nestor"] / medians["qemu"] if both else None,
        })  # fmt: skip
    return results


def row(result):
    number = lambda engine: f"{result['median'][engine]:.3f}" if engine in result["median"] else "-"
    ratio = f"{result['ratio']:.2f}" if result["ratio"] is not None else "-"
    return (f"{result['title']:34} {result['unit']:8} {number('nestor'):>10} {number('qemu'):>10} "
            f"{ratio:>7}  {result['target']}")  # fmt: skip


def main():
    parser = argparse.ArgumentParser(prog="tools/bench", description="Measures Nestor beside QEMU TCG.")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "build" / "bench.json")
    parser.add_argument("--vm", type=pathlib.Path, default=ROOT / "build/release/src/cli/vm")
    parser.add_argument("--guests", type=pathlib.Path, default=ROOT / "build/guests")
    parser.add_argument("--programs", type=pathlib.Path, default=ROOT / "build/release/tests/guests")
    parser.add_argument("names", nargs="*", metavar="NAME", help="only these files of tools/bench.d")
    options = parser.parse_args()

    files = sorted((ROOT / "tools" / "bench.d").glob("*.py"))
    if options.names:
        files = [f for f in files if f.stem in options.names or f.stem.split("_", 1)[-1] in options.names]
    if not files:
        sys.exit("tools/bench: no such measurement")
    about = host()
    results = []
    failures = 0
    print(f"{about['cpu']}, beside {about['peer']}; medians of {options.repeats}\n")
    print(f"{'':34} {'unit':8} {'nestor':>10} {'qemu':>10} {'ratio':>7}  target")
    with tempfile.TemporaryDirectory(prefix="nestor-bench-") as scratch:
        context = Context(options.vm, options.guests, options.programs, pathlib.Path(scratch))
        for file in files:
            module = load(file)
            try:
                measured = run_one(module, context, options.repeats)
                print("\n".join(row(result) for result in measured), flush=True)
            except (Failed, OSError, subprocess.SubprocessError) as error:
                failures += 1
                measured = [{"title": title, "error": str(error)} for _, title, *_ in rows_of(module)]
                print(f"{measured[0]['title']:34} failed: {error}", flush=True)
            results += [{"name": file.stem, **result} for result in measured]
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps({"host": about, "repeats": options.repeats, "results": results}, indent=2))
    print(f"\nas JSON: {options.out}")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
