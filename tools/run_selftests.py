"""Runs KVM selftests on `vm` and compares with the lists of expected verdicts; called by tools/selftests.

Each series of kernel sources has an image (tools/selftests.d/make_image) with a list (selftest_lists.py). A
machine boots it once and is saved; for each variant it is restored, loads KVM with its parameters and is saved;
from there each selftest runs in a machine restored for it alone, so one that hangs or breaks the kernel is one.
A complaint in the kernel's log (WARNING, BUG, Oops, an MSR that there is not) is a failure whatever the
selftest says. Limits are in guest time, so they do not depend on the host; a limit on the host is for the rest.
"""
import argparse
import concurrent.futures
import dataclasses
import fnmatch
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import threading
import time

import selftest_lists

ROOT = pathlib.Path(__file__).resolve().parent.parent
VM = os.environ.get("VM", str(ROOT / "build/release/src/cli/vm"))
MAKE_IMAGE = ROOT / "tools/selftests.d/make_image"
# What KVM is loaded with, besides its defaults: parameters of kvm after "kvm.", else of kvm-intel.
VARIANTS = ("ept=0", "enable_apicv=0", "unrestricted_guest=0", "kvm.force_emulation_prefix=1")
GUEST_SECONDS = 600  # of guest time, from the machine's start, which takes 3
HOST_SECONDS = 900  # of the host's, for a machine that makes no progress of its own
MEMORY = "4G"  # several selftests want 1G for a guest of theirs
SKIPPED = 77


class Unavailable(Exception):
    """What cannot be run here, and why."""


@dataclasses.dataclass(frozen=True)
class Image:
    series: str
    folder: pathlib.Path

    @property
    def version(self):
        return (self.folder / "version").read_text().strip()

    @property
    def tests(self):
        return (self.folder / "tests").read_text().split()


@dataclasses.dataclass
class Outcome:
    verdict: str  # pass, skip, fail
    detail: str = ""  # one line
    output: str = ""
    seconds: float = 0  # of CPU time
    guest: float = 0  # of guest time


def make_image(serieses, refresh, near):
    command = [str(MAKE_IMAGE), *(["--refresh"] if refresh else []), *(["--near"] if near else []), *serieses]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode == SKIPPED:
        raise Unavailable(done.stderr.strip().splitlines()[-1].removeprefix("selftests: "))
    if done.returncode != 0:
        sys.exit(done.stderr)
    sys.stderr.write(done.stderr)
    folder = pathlib.Path(done.stdout.strip())
    return Image(folder.name.split("-")[0], folder)


class Machines:
    """Machines of one image in a store of their own: booted once, loaded once a variant, restored for each run."""

    def __init__(self, image, scratch):
        self.image = image
        self.store = scratch / "store"
        self.runtime = scratch / "run"
        self.runtime.mkdir(parents=True, exist_ok=True)
        self.loading = threading.Lock()
        self.loaded = {}  # variant: None, or why it cannot be

    def vm(self, *arguments, line=None):
        """Runs `vm` with `line` typed; gives its output and its CPU seconds."""
        environment = dict(os.environ, XDG_RUNTIME_DIR=str(self.runtime), NESTOR_STORE=str(self.store))
        process = subprocess.Popen(
            [VM, *map(str, arguments)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment, bufsize=0,
        )  # fmt: skip
        killed = threading.Event()
        limit = threading.Timer(HOST_SECONDS, lambda: (killed.set(), process.kill()))
        limit.start()
        try:
            # Standard input stays open: its end would be the end of the serial line.
            if line is not None:
                process.stdin.write(line.encode() + b"\n")
        except BrokenPipeError:
            pass  # the output says why it ended
        output = process.stdout.read().decode(errors="replace").replace("\r", "")
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        limit.cancel()
        process.stdin.close()
        process.stdout.close()
        if killed.is_set():
            output += f"\nkilled after {HOST_SECONDS} s"
        elif process.returncode < 0:
            output += f"\nvm was ended by signal {-process.returncode}"
        return output, used.ru_utime + used.ru_stime

    def boot(self):
        output, _ = self.vm(
            "run", "--kernel", self.image.folder / "vmlinuz", "--initrd", self.image.folder / "initrd.cpio",
            "--memory", MEMORY, "--cpus", 2, "--append", "console=ttyS0 quiet",
            "--until", "serial:guest: ready", "--save", "booted", "--replace",
        )  # fmt: skip
        if "guest: ready" not in output:
            sys.exit(f"the kernel of {self.image.version} does not boot:\n{output[-3000:]}")

    def load(self, variant):
        """Saves a machine with KVM loaded as `variant` says; raises Unavailable where that kernel cannot."""
        with self.loading:
            if not self.store.exists():
                self.boot()
            if variant not in self.loaded:
                words = variant.split(",") if variant else []
                kvm = [word.removeprefix("kvm.") for word in words if word.startswith("kvm.")]
                intel = [word for word in words if not word.startswith("kvm.")]
                output, _ = self.vm(
                    "restore", "booted", "--until", "serial:guest: loaded", "--save", tag(variant), "--replace",
                    line=f"load {' '.join(kvm)} / {' '.join(intel)}",
                )  # fmt: skip
                said = re.findall(r"^guest: (.*)$", output, re.M)
                why = said[-1] if said else output[-300:]
                self.loaded[variant] = None if why == "loaded" else why
        if self.loaded[variant]:
            raise Unavailable(self.loaded[variant])

    def run(self, variant, name):
        """Runs one selftest; load(variant) was called."""
        output, seconds = self.vm("restore", tag(variant), "--until", f"seconds:{GUEST_SECONDS}", line=f"run {name}")
        return read(name, output, seconds)


def tag(variant):
    return "loaded" + "".join(c if c.isalnum() else "-" for c in "," * bool(variant) + variant)


def read(name, output, seconds):
    """The outcome that a machine's serial output tells."""
    found = re.search(r"^guest: verdict (\S+) (\d+)( complaint)? from ([\d.]+) to ([\d.]+)$", output, re.M)
    if not found or found[1] != name:
        end = output.strip().splitlines()[-1:] or [f"still running after {GUEST_SECONDS} s of guest time"]
        return Outcome("fail", f"gave no verdict: {end[0][:200]}", output, seconds)
    text, status = output[: found.start()], int(found[2])
    guest = float(found[5]) - float(found[4])
    if found[3]:
        complaint = next((line for line in text.splitlines() if "WARNING" in line or "BUG" in line), "")
        detail = f"status {status}, and the kernel complains: {complaint}"
        return Outcome("fail", detail, text, seconds, guest)
    verdict = {0: "pass", 4: "skip"}.get(status, "fail")
    return Outcome(verdict, "" if verdict == "pass" else last_words(text, status), text, seconds, guest)


def last_words(text, status):
    """The line of a selftest's output that tells most of why it did not pass."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    for pattern in (r"SKIP", r"==== Test Assertion Failure|^not ok|# .*FAIL"):
        for at, line in enumerate(lines):
            if re.search(pattern, line):
                return " ".join(lines[at : at + 2])[:200] if "====" in line else line[:200]
    return f"status {status}" + (f": {lines[-1][:160]}" if lines else "")


class Report:
    """Prints an outcome when it is there, as a table or as TAP (what tools/test counts), and counts."""

    def __init__(self, tap, verbose):
        self.tap, self.verbose = tap, verbose
        self.number = 0
        self.counts = {"ok": 0, "known": 0, "skip": 0, "wrong": 0}

    def skip(self, what, why):
        self.counts["skip"] += 1
        self._tap("ok", what, f" # SKIP {why}")
        if not self.tap:
            print(f"{what:60} skipped: {why}", flush=True)

    def outcome(self, image, variant, row, name, outcome):
        result, words = selftest_lists.judge(row, outcome.verdict, outcome.detail)
        self.counts[result] += 1
        what = "/".join(filter(None, (image.series, variant, name)))
        again = ["tools/selftests", "--source", image.series, *(["--variant", variant] if variant else []), name]
        notes = {"ok": "", "skip": f" # SKIP {words}", "known": f" # SKIP known to fail: {words}", "wrong": f" - {words}"}
        self._tap("not ok" if result == "wrong" else "ok", what, notes[result])
        if result == "wrong" and self.tap:
            print(f"# reproduce: {' '.join(again)}")
        if not self.tap:
            mark = "WRONG " if result == "wrong" else ""
            print(f"{name:42} {outcome.verdict:5} {outcome.seconds:6.1f} {outcome.guest:7.1f}  {mark}{words}", flush=True)
            if result == "wrong":
                print(f"    again: {' '.join(again)}")
        if result == "wrong" or self.verbose:
            print("\n".join("    " + line for line in outcome.output.strip().splitlines()[-60:]), flush=True)

    def _tap(self, result, what, notes):
        if self.tap:
            self.number += 1
            print(f"{result} {self.number} - {what}{notes}", flush=True)


def parse_arguments():
    parser = argparse.ArgumentParser(
        prog="tools/selftests",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Runs the KVM selftests of Debian's kernel sources on `vm`, and compares with tools/selftests.d.",
        epilog="""Examples:
  tools/selftests                                        # the quick ones of the newest for Debian 12
  tools/selftests --long --source 6.1                    # all of 6.1
  tools/selftests --variant ept=0 state_test 'vmx_*'     # these, with shadow paging in L1
  tools/selftests --variant kvm.ignore_msrs=1,vpid=0 -v debug_regs     # its output; any parameters of KVM
  tools/selftests --list --source 7.2
The columns are name, verdict, seconds of CPU time and of guest time, and the list's reason. A selftest that the
list does not have, or that says something else than it has there, fails the run.""",
    )  # fmt: skip
    parser.add_argument("--source", action="append", metavar="SERIES", help="kernel sources, as 6.12; all: each listed")
    parser.add_argument("--variant", action="append", metavar="P=V,...", help="parameters of kvm-intel, or kvm.P=V")
    parser.add_argument("--long", action="store_true", help="not only the quick ones; every variant")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="machines at a time (%(default)s)")
    parser.add_argument("--refresh", action="store_true", help="ask Debian for newer sources")
    parser.add_argument("--list", action="store_true", help="tell what is expected, and run nothing")
    parser.add_argument("--tap", action="store_true", help="print TAP instead of a table")
    parser.add_argument("--store", type=pathlib.Path, help="keep the machines: tags booted, loaded, loaded-ept-0, ...")
    parser.add_argument("-v", "--verbose", action="store_true", help="every selftest's output")
    parser.add_argument("names", nargs="*", metavar="NAME", help="only selftests of this name (patterns allowed)")
    return parser.parse_args()


def chosen(rows, tests, options):
    """Names to run, the longest first as far as the list tells, of those the image or the list has."""
    if options.names:
        return [n for n in sorted({*tests, *rows}) if any(fnmatch.fnmatchcase(n, p) for p in options.names)]
    times = ("quick", "rest") if options.long else ("quick",)
    return [name for name, row in rows.items() if row.when in times] + [
        name for name in tests if name not in rows and options.long
    ]


def variants(options):
    if options.variant:
        return options.variant
    return ["", *VARIANTS] if options.long or not options.names else [""]


def run_image(image, options, report, scratch):
    lists = selftest_lists.load(image.series)
    machines = Machines(image, scratch)
    if options.store:
        machines.store = options.store
    if not options.tap:
        print(f"\nlinux-source-{image.series} {image.version}")
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        for variant in variants(options):
            rows = selftest_lists.expected(lists, variant)
            names = chosen(rows, image.tests, options)
            if not names:
                continue
            if variant and variant not in lists and not options.variant:
                report.skip("/".join((image.series, variant, "all")), "the list has no part for it")
                continue
            if variant and not options.tap:
                print(f"with {variant}")
            try:
                machines.load(variant)
            except Unavailable as why:
                report.skip("/".join(filter(None, (image.series, variant, "all"))), str(why))
                continue
            runs = [
                pool.submit(machines.run, variant, name) if name in image.tests else None for name in names
            ]
            for name, run in zip(names, runs):
                outcome = run.result() if run else Outcome("fail", "there is none of that name: it did not build")
                report.outcome(image, variant, rows.get(name), name, outcome)


def images(options):
    """Makes the images asked for; gives (image, None) or (None, series and why there is none)."""
    known = selftest_lists.series()
    near = not options.source and not options.long  # of those, the newest for Debian 12
    if near:
        wanted = [known]
    else:
        wanted = [[s] for s in (options.source if options.source and "all" not in options.source else known[::-1])]
    for serieses in wanted:
        for one in serieses:
            if one not in known:
                sys.exit(f"tools/selftests: there is no list of {one}, only of {', '.join(known)}")
        try:
            yield make_image(serieses, options.refresh, near), None
        except Unavailable as why:
            yield None, ("linux-source-" + ",".join(serieses), str(why))


def list_expected(options):
    for series in options.source or selftest_lists.series():
        lists = selftest_lists.load(series)
        for variant in options.variant or ["", *VARIANTS]:
            for row in selftest_lists.expected(lists, variant).values():
                print(f"{series:5} {variant:28} {row.name:42} {row.verdict:5} {row.when:6} {row.reason}")


def main():
    options = parse_arguments()
    if options.list:
        return list_expected(options)
    begin = time.monotonic()
    report = Report(options.tap, options.verbose)
    for image, missing in images(options):
        if missing:
            report.skip(missing[0], missing[1])
            continue
        with tempfile.TemporaryDirectory(prefix="selftests-") as scratch:
            run_image(image, options, report, pathlib.Path(scratch))
    counts = report.counts
    total = sum(counts.values())
    print(f"{'# ' if options.tap else ''}{counts['ok']} as they should be, {counts['known']} known to fail, "
          f"{counts['skip']} skipped, {counts['wrong']} wrong, in {time.monotonic() - begin:.0f} s")  # fmt: skip
    if total == 0:
        sys.exit("tools/selftests: no selftest was found")
    sys.exit(1 if counts["wrong"] else 0)


if __name__ == "__main__":
    main()
