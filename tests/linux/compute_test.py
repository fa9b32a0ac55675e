#!/usr/bin/env python3
"""The `compute` guest comes to the same results on `vm` as on QEMU: shell arithmetic, hashes, sort, awk,
SSE and x87. Every line it prints is compared."""
import shutil
import subprocess

import machine

ROUNDS = 2


class Compute(machine.VmTest):
    def results(self, output):
        lines = output.decode(errors="replace").replace("\r", "").split("\n")
        return [line for line in lines if line.startswith("compute ")]

    def peer(self):
        if shutil.which("qemu-system-x86_64") is None:
            self.skipTest("qemu-system-x86_64 is not installed")
        done = subprocess.run(
            ["qemu-system-x86_64", "-accel", "tcg", "-cpu", "max", "-m", "512", "-nodefaults", "-display", "none",
             "-no-reboot", "-serial", "stdio", "-kernel", machine.GUESTS / "vmlinuz",
             "-initrd", machine.GUESTS / "compute.cpio", "-append", f"console=ttyS0 quiet guest_rounds={ROUNDS}"],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, timeout=machine.PATIENCE, check=True,
        )  # fmt: skip
        return self.results(done.stdout)

    def test_the_results_on_one_and_four_cpus_are_those_of_qemu(self):
        expected = self.peer()
        self.assertEqual(len(expected), ROUNDS + 1)
        for cpus in (1, 4):
            with self.subTest(cpus=cpus):
                done = self.vm("run", *self.guest("compute", f"guest_rounds={ROUNDS}", cpus=cpus))
                self.assertEqual(self.results(done.stdout), expected)


if __name__ == "__main__":
    machine.main()
