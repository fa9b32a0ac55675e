#!/usr/bin/env python3
"""Linux reboots itself, with saves and restores in between, after kernel and initrd are gone: it boots out of the store,
and is the machine that nothing was done to, bit for bit."""
import shutil

import machine

# Reboots after a second of sleep, again and again.
WORDS = 'console=ttyS0 quiet rdinit=/bin/sh -- -c "echo booted; sleep 1; reboot -f"'
END = ["--until", "seconds:5"]  # two resets later


class Reset(machine.VmTest):
    def files(self):
        copies = []
        for name in ("vmlinuz", "shell.cpio"):
            copies.append(self.scratch / name)
            shutil.copy(machine.GUESTS / name, copies[-1])
        return copies

    def boot(self, cpus, *options):
        kernel, initrd = self.files()
        done = self.vm("run", "--kernel", kernel, "--initrd", initrd, "--memory", "256M", "--cpus", cpus,
                       "--append", WORDS, *options)  # fmt: skip
        kernel.unlink()
        initrd.unlink()
        return done.stdout

    def move_store(self, name):
        moved = self.scratch / name
        self.store.rename(moved)
        self.store = moved
        self.environment["NESTOR_STORE"] = str(moved)

    def digest(self, tag):
        return self.json("digest", tag)["machineDigest"]

    def broken_and_unbroken(self, cpus):
        whole = self.boot(cpus, *END, "--save", "unbroken")
        self.assertEqual((whole.count(b"booted"), whole.count(b"Restarting")), (2, 2), whole)
        wanted = self.digest("unbroken")
        output = self.boot(cpus, "--until", "serial:booted", "--save", "first")
        before = self.json("store", "stat")["packBytes"]
        self.move_store("moved")
        # In the middle of the second start, which is lazy memory of the first one's no more.
        output += self.vm("restore", "first", "--until", "seconds:2.6", "--save", "second").stdout
        self.assertLess(self.json("store", "stat")["packBytes"] - before, 100 << 20)
        self.move_store("again")
        output += self.vm("restore", "second", *END, "--save", "third").stdout
        self.assertEqual(output, whole)
        self.assertEqual(self.digest("third"), wanted)

    def test_on_one_cpu(self):
        self.broken_and_unbroken(1)

    def test_on_two_cpus(self):
        self.broken_and_unbroken(2)

    def test_another_kernel_command_line_is_another_machine(self):
        first, second = self.files()
        for tag, words in (("one", WORDS), ("two", WORDS + " ")):
            self.vm("run", "--kernel", first, "--initrd", second, "--append", words, "--until", "icount:1000",
                    "--save", tag)  # fmt: skip
        self.assertNotEqual(self.digest("one"), self.digest("two"))
        sizes = self.json("snap", "show", "two")
        self.assertEqual(sizes["imageBytes"], first.stat().st_size + second.stat().st_size)
        self.assertLess(sizes["uniqueBytes"], 1 << 20, "the images are stored once")


if __name__ == "__main__":
    machine.main()
