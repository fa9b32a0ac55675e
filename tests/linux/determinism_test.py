#!/usr/bin/env python3
"""Two runs of the same boot agree in memory and in every state unit at every 10 million instructions.

With APIC virtualization and without they agree in what a guest can see."""
import itertools
import os
import subprocess
import unittest

import machine

PROGRAM = os.environ.get("BOOT_DIGESTS", "boot_digests")
EVERY = 10_000_000


class Determinism(unittest.TestCase):
    def start(self, cpus, *view):
        arguments = [PROGRAM, machine.GUESTS / "vmlinuz", machine.GUESTS / "compute.cpio", cpus, EVERY,
                     "console=ttyS0 quiet guest_rounds=1", *view]  # fmt: skip
        return subprocess.Popen(
            [str(a) for a in arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def two_runs_agree(self, cpus, views=((), ())):
        runs = [self.start(cpus, *view) for view in views]
        stops = 0
        last = ""
        for left, right in itertools.zip_longest(*(run.stdout for run in runs), fillvalue=""):
            if left != right:
                for run in runs:
                    run.kill()
                differing = [a.split("=")[0] for a, b in zip(left.split(), right.split()) if a != b]
                self.fail(f"after {last.split(' ')[0] or 0} the runs differ in {differing}\n{left}{right}")
            last = left
            stops += 1
        for run in runs:
            said = run.communicate()[1]
            self.assertEqual(run.returncode, 0, said)
        self.assertGreater(stops, 50, "the guest ended too early to be a boot")

    def test_two_boots_on_one_cpu_are_the_same(self):
        self.two_runs_agree(1)

    def test_two_boots_on_four_cpus_are_the_same(self):
        self.two_runs_agree(4)

    def test_two_boots_with_and_without_apic_virtualization_look_the_same(self):
        self.two_runs_agree(2, (("apicv",), ("no-apicv",)))


if __name__ == "__main__":
    machine.main()
