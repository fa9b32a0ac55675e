"""Builds every lane and runs its test suites; called by tools/test, which sets up first.

A lane is a build directory with its own compiler options. The tests and their suites are Meson's; what
is added here: lanes, counting single tests inside a test program, skips compared with the committed
list, the command that reproduces a failure, and the time each suite took.
"""
import argparse
import collections
import dataclasses
import fnmatch
import json
import os
import pathlib
import re
import shlex
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
EXPECTED_SKIPS = ROOT / "tools" / "expected_skips.txt"
# Cheap suites first, so that a small mistake shows soon. Suites not named here run after these.
ORDER = ["style", "unit", "guests", "qemu", "oracle", "fuzz", "cli", "linux", "selftests"]
NEEDS_LINUX = {"linux", "cli"}

@dataclasses.dataclass(frozen=True)
class Lane:
    name: str
    setup: list  # options of meson setup
    suites: set  # suites it runs; empty: all
    long_suites: set  # the same under --long
    compiler: dict = dataclasses.field(default_factory=dict)
    environment: dict = dataclasses.field(default_factory=dict)
    fewer: dict = dataclasses.field(default_factory=dict)  # environment unless --long: less of what is random
    slower: int = 1  # factor on the time limit of a test
    whole: bool = True  # builds all there is; else what the chosen tests need

    @property
    def build(self):
        return ROOT / "build" / self.name

    def runs(self, suite, long):
        wanted = self.long_suites if long else self.suites
        return (not wanted or suite in wanted) and (long or suite != "long")


LANES = [
    Lane("release", [], set(), set()),
    Lane(
        "asan",
        [
            "-Db_sanitize=address,undefined",
            "-Db_lundef=false",
            "-Doptimization=0",  # but for the engine
            "-Dunity=on",
            "-Dcpp_args=-g1 -fno-omit-frame-pointer -fno-sanitize-recover=undefined -Wno-deprecated-declarations"
            f" -include {ROOT}/tools/schema/libcapnp.hpp",
            "-Dcpp_link_args=-fsanitize=address,undefined",
        ],
        {"unit", "guests", "oracle", "fuzz"},
        {"unit", "guests", "oracle", "fuzz", "cli", "linux", "long"},
        # clang, so that a second compiler reads everything.
        compiler={"CC": "clang-19", "CXX": "clang++-19"},
        environment={
            "ASAN_OPTIONS": "detect_leaks=1:abort_on_error=0",
            "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1",
            "GUESTS_SLOW": "5",
        },
        fewer={"NESTOR_ORACLE_CASES": "20000", "NESTOR_FUZZ_FEWER": "10"},
        slower=5,
        whole=False,
    ),
]


@dataclasses.dataclass
class Tally:
    passed: int = 0
    failed: int = 0
    skipped: list = dataclasses.field(default_factory=list)  # (name, reason)
    failures: list = dataclasses.field(default_factory=list)  # (name, command)

    def add(self, other):
        self.passed += other.passed
        self.failed += other.failed
        self.skipped += other.skipped
        self.failures += other.failures


def note(text):
    print(text, flush=True)


def shell(command, directory, environment=None):
    """A line that runs `command` alone, from any place."""
    words = [f"{k}={shlex.quote(v)}" for k, v in sorted((environment or {}).items())]
    words += [shlex.quote(str(w)) for w in command]
    return f"cd {shlex.quote(str(directory))} && {' '.join(words)}"


def configure(lane):
    """False when the lane cannot be configured; what went wrong has been printed."""
    environment = dict(os.environ, **lane.compiler)
    lane.build.parent.mkdir(exist_ok=True)
    if (lane.build / "build.ninja").exists():
        command = ["ninja", "-C", str(lane.build), "--quiet", "build.ninja"]
    else:
        command = ["meson", "setup", str(lane.build), str(ROOT), *lane.setup]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        note(done.stdout + done.stderr)
    return done.returncode == 0


def build(lane, chosen):
    """Builds the lane; False when that fails, and what went wrong has been printed."""
    command = ["ninja", "-C", str(lane.build), "--quiet"]
    if not lane.whole:
        listed = introspect(lane, "--targets")
        needed = {target for tests in chosen.values() for test in tests for target in test["depends"]}
        files = [target["filename"][0] for target in listed if target["id"] in needed]
        if not files:
            return True
        command += sorted(os.path.relpath(file, lane.build) for file in files)
    environment = dict(os.environ, CCACHE_BASEDIR=str(ROOT), **lane.compiler)
    return subprocess.run(command, env=environment).returncode == 0


def introspect(lane, what):
    """What Meson says of a configured lane, from JSON."""
    command = ["meson", "introspect", what, str(lane.build)]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def tests_of(lane):
    """{suite: [test]} as Meson knows them; a test without a suite is a mistake in a meson.build."""
    suites = collections.defaultdict(list)
    for test in introspect(lane, "--tests"):
        names = [s.split(":", 1)[1] for s in test["suite"] if ":" in s]
        if not names:
            sys.exit(f"tools/test: the test {test['name']} has no suite")
        suites[names[0]].append(test)
    rank = {name: i for i, name in enumerate(ORDER)}
    return dict(sorted(suites.items(), key=lambda s: (rank.get(s[0], len(rank)), s[0])))


GTEST_CASE = re.compile(r"^\[\s+(OK|FAILED|SKIPPED)\s+\] (\S+?),?(?: where .*)? \(\d+ ms\)$", re.M)
GTEST_RUN = re.compile(r"^\[ RUN      \] (\S+)$", re.M)
PYTHON_CASE = re.compile(r"^(test\w+) \(.*?\) \.\.\. (?:.*\n)*?(ok|FAIL|ERROR|skipped .*)$", re.M)
TAP_CASE = re.compile(r"^(ok|not ok) \d+ - (\S+)(?: # SKIP (.*)| - .*)?$", re.M)
TAP_AGAIN = re.compile(r"^# reproduce: (.*)$", re.M)


def count_tap(record, output, whole):
    """One tally entry for each line of the Test Anything Protocol."""
    tally = Tally()
    for case in TAP_CASE.finditer(output):
        outcome, name, reason = case.groups()
        if outcome == "not ok":
            again = TAP_AGAIN.match(output, case.end() + 1)
            tally.failed += 1
            tally.failures.append((f"{record['name']} {name}", shell(again[1].split(), ROOT) if again else whole))
        elif reason is not None:
            tally.skipped.append((f"{record['name']} {name}", reason))
        else:
            tally.passed += 1
    return tally


def count_gtest(record, output, again):
    """One tally entry for each GoogleTest case in the output of a test program."""
    tally = Tally()
    command = [w for w in record["command"] if not w.startswith("--gtest_output")]
    seen = set()
    for outcome, case in GTEST_CASE.findall(output):
        seen.add(case)
        name = f"{record['name']} {case}"
        if outcome == "OK":
            tally.passed += 1
        elif outcome == "SKIPPED":
            before = output[: output.index(f"SKIPPED ] {case}")].strip().splitlines()
            tally.skipped.append((name, before[-2] if len(before) > 1 else ""))
        else:
            tally.failed += 1
            tally.failures.append((name, again([*command, f"--gtest_filter={case}"])))
    for case in GTEST_RUN.findall(output):
        if case not in seen:  # begun and never ended: the program died in it
            tally.failed += 1
            tally.failures.append(
                (f"{record['name']} {case}", again([*command, f"--gtest_filter={case}"]))
            )
    return tally


def count(record, directory):
    """The tally of one Meson test: its cases where the output shows them, else itself."""
    output = record.get("stdout", "") + "\n" + record.get("stderr", "")
    extra = {k: v for k, v in record["env"].items() if os.environ.get(k) != v}
    for name in ("MALLOC_PERTURB_", "MESON_TEST_ITERATION", "ASAN_OPTIONS", "UBSAN_OPTIONS"):
        extra.pop(name, None)
    again = lambda command: shell(command, directory, extra)
    whole = again([w for w in record["command"] if not w.startswith("--gtest_output")])
    result = record["result"]

    if GTEST_RUN.search(output):
        tally = count_gtest(record, output, again)
    elif TAP_CASE.search(output):
        tally = count_tap(record, output, whole)
    elif PYTHON_CASE.search(output):
        tally = Tally()
        for case, outcome in PYTHON_CASE.findall(output):
            if outcome == "ok":
                tally.passed += 1
            elif outcome.startswith("skipped"):
                tally.skipped.append((f"{record['name']} {case}", outcome[8:].strip("'\"")))
            else:
                tally.failed += 1
                tally.failures.append((f"{record['name']} {case}", whole))
    else:
        tally = Tally()
        if result in ("OK", "EXPECTEDFAIL"):
            tally.passed = 1
        elif result == "SKIP":
            lines = [line for line in output.splitlines() if line.strip()]
            tally.skipped.append((record["name"], lines[-1] if lines else ""))
    if result not in ("OK", "EXPECTEDFAIL", "SKIP") and tally.failed == 0:
        tally.failed = 1  # a time limit, a leak found at the end, a bad exit status
        tally.failures.append((f"{record['name']} ({result.lower()})", whole))
    return tally


def run_suite(lane, suite, tests, long):
    """Runs the named tests of one suite and counts what happened."""
    log = f"testlog-{suite}"
    environment = dict(os.environ, **lane.environment)
    environment.update({"NESTOR_LONG": "1"} if long else lane.fewer)
    slower = lane.slower * (10 if long else 1)
    command = ["meson", "test", "-C", str(lane.build), "--no-rebuild", "--print-errorlogs"]
    command += ["--logbase", log, "--timeout-multiplier", str(slower)]
    command += ["--suite", suite, *[t["name"] for t in tests]]
    record_file = lane.build / "meson-logs" / f"{log}.json"
    record_file.unlink(missing_ok=True)
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if not record_file.exists():
        note(done.stdout + done.stderr)
        return Tally(failed=1, failures=[(f"suite {suite}", shlex.join(command))])

    workdirs = {t["name"]: t["workdir"] for t in tests if t["workdir"]}
    records = [json.loads(line) for line in record_file.read_text().splitlines()]
    tally = Tally()
    for record in records:
        record["name"] = record["name"].split(" / ")[-1]
        record["name"] = record["name"].split(":", 1)[-1] if " / " in record["name"] else record["name"]
        one = count(record, workdirs.get(record["name"], lane.build))
        if one.failed:
            note(f"--- {record['name']} ({suite}, lane {lane.name}) ---")
            output = record.get("stdout", "") + record.get("stderr", "")
            note(output if len(output) < 20000 else output[:4000] + "\n[...]\n" + output[-16000:])
        tally.add(one)
    if len(records) < len(tests):
        tally.failed += 1
        tally.failures.append((f"{len(tests) - len(records)} tests of {suite} left no record", shlex.join(command)))
    return tally


def expected_skips():
    """[(pattern, reason)] from the committed list."""
    rows = []
    for line in EXPECTED_SKIPS.read_text().splitlines():
        line = line.split("#", 1)[0].strip()
        if line:
            pattern, _, reason = line.partition(":")
            rows.append((pattern.strip(), reason.strip()))
    return rows


def report_skips(skipped):
    """Prints each skip with its reason; gives how many are not on the list."""
    unexpected = 0
    known = expected_skips()
    for name, reason in skipped:
        listed = any(fnmatch.fnmatchcase(name, pattern) for pattern, _ in known)
        unexpected += not listed
        mark = "" if listed else "  (not in tools/expected_skips.txt)"
        note(f"skipped: {name}: {reason.strip() or 'no reason given'}{mark}")
    return unexpected


def parse_arguments():
    parser = argparse.ArgumentParser(
        prog="tools/test", description="Builds Nestor and runs its tests.", epilog="The last line counts single tests."
    )
    parser.add_argument("--long", action="store_true", help="also what takes more than half an hour")
    parser.add_argument("--suite", action="append", help="only this suite; may be repeated")
    parser.add_argument("--lane", action="append", choices=[lane.name for lane in LANES], help="only this lane")
    parser.add_argument("--list", action="store_true", help="list the tests and run none")
    parser.add_argument("names", nargs="*", metavar="NAME", help="only tests of this name (patterns allowed)")
    return parser.parse_args()


def chosen_tests(lane, options):
    """{suite: [test]} of what the command line asks for in this lane."""
    chosen = {}
    for suite, tests in tests_of(lane).items():
        if options.suite and suite not in options.suite:
            continue
        if not options.suite and not options.names and not lane.runs(suite, options.long):
            continue
        if options.names:
            tests = [t for t in tests if any(fnmatch.fnmatchcase(t["name"], n) for n in options.names)]
        if tests:
            chosen[suite] = tests
    return chosen


def main():
    options = parse_arguments()
    if options.lane:
        lanes = [lane for lane in LANES if lane.name in options.lane]
    else:
        # A name or suite asked for alone runs where it ships; the other lanes are for the whole run.
        alone = options.names or options.suite
        lanes = LANES[:1] if alone else LANES
    total = Tally()
    times = []
    found = 0
    for lane in lanes:
        start = time.monotonic()
        if not configure(lane):
            total.add(Tally(failed=1, failures=[(f"set-up of lane {lane.name}", f"meson setup {lane.build}")]))
            continue
        chosen = chosen_tests(lane, options)
        if options.list:
            for suite, tests in chosen.items():
                for test in tests:
                    print(f"{lane.name} {suite} {test['name']}")
            continue
        note(f"building lane {lane.name}")
        if not build(lane, chosen):
            total.add(Tally(failed=1, failures=[(f"build of lane {lane.name}", f"ninja -C {lane.build}")]))
            continue
        times.append((lane.name, "build", time.monotonic() - start, None))
        if NEEDS_LINUX & set(chosen) and subprocess.run([ROOT / "tools" / "guest"]).returncode != 0:
            total.add(Tally(failed=1, failures=[("making the Linux guests", "tools/guest")]))
        for suite, tests in chosen.items():
            start = time.monotonic()
            tally = run_suite(lane, suite, tests, options.long)
            times.append((lane.name, suite, time.monotonic() - start, tally))
            note(f"{lane.name} {suite}: {tally.passed} passed, {tally.failed} failed, {len(tally.skipped)} skipped")
            found += tally.passed + tally.failed + len(tally.skipped)
            total.add(tally)
    if options.list:
        return

    if found == 0 and total.failed == 0:
        total.add(Tally(failed=1, failures=[("no test was found", "tools/test --list")]))
    note("\nlane     suite    seconds  tests")
    for lane, suite, seconds, tally in times:
        tests = tally.passed + tally.failed + len(tally.skipped) if tally else ""
        note(f"{lane:8} {suite:8} {seconds:7.1f}  {tests}")
    note("")
    unexpected = report_skips(total.skipped)
    if unexpected and os.environ.get("CI") == "true":
        total.failed += unexpected
        total.failures.append((f"{unexpected} unexpected skips", "CI=true tools/test"))
    for name, command in total.failures:
        note(f"failed: {name}\n    to reproduce: {command}")
    note(f"{total.passed} passed, {total.failed} failed, {len(total.skipped)} skipped")
    sys.exit(1 if total.failed else 0)


if __name__ == "__main__":
    main()
