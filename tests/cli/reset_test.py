#!/usr/bin/env python3
"""Resets of machines that were saved and restored in between: what they are booted from again comes out of the store,
whatever became of the files, the store's place and its tags. The guest program checks every start and runs on QEMU too
(tests/guests/reset.asm), so what it prints has an outside judge."""
import os
import random
import shutil
import unittest

import vm
from vm import CORRUPT, FAILED


class Reset(vm.VmTest):
    STARTS = {1: 127_000, 2: 928_000}  # instructions of one start, nearly

    def setUp(self):
        super().setUp()
        self.kernel = self.scratch / "kernel.elf"
        shutil.copy(vm.GUESTS / "reset.elf", self.kernel)
        self.stores = 0

    def machine(self, cpus=1):
        return ["--kernel", self.kernel, "--memory", "16M", "--cpus", cpus, "--append", "of a reset"]

    def boot(self, *options, cpus=1, status=0):
        done = self.vm("run", *self.machine(cpus), *options, status=status)
        self.kernel.unlink()  # nobody may look at it again
        return done

    def move_store(self):
        """Whatever was open is not where it was."""
        self.stores += 1
        moved = self.scratch / f"store-{self.stores}"
        self.store.rename(moved)
        self.store = moved
        self.environment["NESTOR_STORE"] = str(moved)

    def digest(self, tag):
        return self.json("digest", tag)["machineDigest"]

    def unbroken(self, cpus):
        """What it prints, and what it is near its end, when nothing is done to it."""
        whole = self.vm("run", *self.machine(cpus), status=1).stdout
        end = int(self.STARTS[cpus] * 4.9)
        first = self.vm("run", *self.machine(cpus), "--until", f"icount:{end}", "--save", "unbroken")
        self.assertTrue(whole.startswith(first.stdout))
        return whole, end, self.digest("unbroken")

    def test_a_restored_machine_resets_as_the_unbroken_one_does(self):
        for cpus in (1, 2):
            for memory in ("lazy", "eager"):
                whole, end, wanted = self.unbroken(cpus)
                self.assertEqual(whole.count(b"ok image.data"), 5)
                output = b""
                step = self.STARTS[cpus]
                last = None
                for part in range(1, 11):  # two saves to a start
                    until = ["--until", f"icount:{min(part * step // 2, end)}", "--save", f"{cpus}{memory}{part}"]
                    if last is None:
                        done = self.vm("run", *self.machine(cpus), *until)
                    else:
                        self.kernel.rename(self.scratch / "away")
                        self.move_store()
                        done = self.vm("restore", last, "--memory", memory, *until)
                        (self.scratch / "away").rename(self.kernel)
                    output += done.stdout
                    last = until[-1]
                self.assertEqual(self.digest(last), wanted, f"{cpus} vCPUs, {memory}")
                output += self.vm("restore", last, status=1).stdout
                self.assertEqual(output, whole)
                self.vm("store", "fsck")
                for tag in [s["tag"] for s in self.json("snap", "ls")]:
                    self.vm("snap", "rm", tag)

    def test_many_resets_in_one_restored_process_with_live_saves_in_between(self):
        whole, end, wanted = self.unbroken(2)
        self.boot("--until", "icount:5000", "--save", "early", cpus=2)
        process = self.start("restore", "early", "--name", "restless", "--until", f"icount:{end}", "--save", "late")
        saved = 0
        while process.poll() is None:
            words = ["save", "restless", "--tag", f"live{saved}", "--mode", "live"]
            if self.start(*words).wait() == 0:
                saved += 1
        self.assertEqual(process.returncode, 0)
        self.assertEqual(self.digest("late"), wanted)
        self.vm("store", "fsck")
        for number in range(saved):
            self.vm("snap", "verify", f"live{number}")
            self.assertTrue(whole.endswith(self.vm("restore", f"live{number}", status=1).stdout))

    def test_nobodys_gc_takes_what_a_running_machine_boots_from(self):
        whole, _, _ = self.unbroken(1)
        self.boot("--until", "icount:5000", "--save", "early")
        self.vm("snap", "rm", "unbroken")
        process = self.start("restore", "early", "--name", "holder", "--paused")
        self.wait_for(lambda: "holder" in [m["name"] for m in self.json("ps")])
        self.vm("snap", "rm", "early")
        self.vm("store", "gc")
        self.vm("resume", "holder")
        output, errors = process.communicate(timeout=vm.PATIENCE)
        self.assertEqual(process.returncode, 1, errors)
        self.assertTrue(whole.endswith(output))
        self.vm("store", "gc")
        self.assertEqual(self.json("store", "stat")["packs"], 0)

    def test_a_damaged_image_ends_the_machine_at_its_reset_and_is_named(self):
        with self.kernel.open("ab") as kernel:  # pages that are in no memory
            kernel.write(random.Random(1).randbytes(1 << 20))
        self.boot("--until", "icount:5000", "--save", "early")
        packs = [p for p in (self.store / "packs").iterdir()]
        self.assertEqual(len(packs), 1)
        found = 0
        original = packs[0].read_bytes()
        for at in range(200, len(original) - 200, len(original) // 24):
            data = bytearray(original)
            data[at : at + 40] = bytes(40)
            packs[0].write_bytes(data)
            done = self.start("restore", "early")
            output, errors = done.communicate(timeout=vm.PATIENCE)
            if b"boot image" in errors:
                found += 1
                self.assertEqual(done.returncode, CORRUPT)
                self.assertIn(b"early", errors)
                self.assertIn(b"kernel.elf", errors)
                self.assertIn(b"reset the machine at count", errors)
                self.assertIn(b"early", self.vm("store", "fsck", status=CORRUPT).stdout)
                self.vm("snap", "verify", "early", status=CORRUPT)
        self.assertGreater(found, 0)
        packs[0].write_bytes(original)
        self.vm("restore", "early", status=1)

    def test_images_are_shown_compared_and_stored_once(self):
        self.vm("run", *self.machine(), "--until", "icount:5000", "--save", "one")
        size = os.stat(self.kernel).st_size
        before = self.json("store", "stat")["pages"]
        self.vm("run", *self.machine(), "--until", "icount:5000", "--save", "two")
        self.assertEqual(self.json("store", "stat")["pages"], before)
        self.vm("run", *self.machine()[:-1], "words", "--until", "icount:5000", "--save", "other")
        shown = self.json("snap", "show", "one")
        self.assertEqual([(i["kind"], i["size"], i["arguments"]) for i in shown["images"]],
                         [("kernel", size, "of a reset")])  # fmt: skip
        self.assertEqual(shown["imageBytes"], size)
        self.assertIn(b"of a reset", self.vm("snap", "show", "one").stdout)
        self.assertEqual(self.digest("one"), self.digest("two"))
        fields = {f["path"]: (f["left"], f["right"]) for f in self.json("snap", "diff", "one", "other")["fields"]}
        self.assertEqual(fields["images[0].arguments"], ("of a reset", "words"))
        told = self.vm("snap", "diff", "one", "other").stdout.decode()
        self.assertIn("\n0 fields of state\n1 field of boot images\n", told)

    def test_a_stream_takes_images_along_once(self):
        whole, _, _ = self.unbroken(1)
        self.boot("--until", "icount:5000", "--save", "early")
        stream = self.scratch / "stream"
        self.vm("snap", "export", "early", "--to", stream)
        shutil.rmtree(self.store)
        self.vm("store", "init")
        self.vm("snap", "import", stream)
        self.assertTrue(whole.endswith(self.vm("restore", "early", status=1).stdout))
        self.assertEqual(self.json("snap", "import", stream, "--as", "again")["newPages"], 0)

    def test_a_restored_machine_saved_elsewhere_takes_its_images_along(self):
        whole, _, _ = self.unbroken(1)
        self.boot("--until", "icount:5000", "--save", "early")
        process = self.start("restore", "early", "--name", "mover", "--paused")
        self.wait_for(lambda: "mover" in [m["name"] for m in self.json("ps")])
        elsewhere = self.scratch / "elsewhere"
        self.vm("save", "mover", "--tag", "there", "--store", elsewhere)
        self.vm("stop", "mover")
        process.communicate(timeout=vm.PATIENCE)
        shutil.rmtree(self.store)
        self.vm("snap", "verify", "there", "--store", elsewhere)
        self.assertTrue(whole.endswith(self.vm("restore", "there", "--store", elsewhere, status=1).stdout))

    def test_no_reboot_ends_a_restored_machine_too(self):
        self.boot("--until", "icount:5000", "--save", "early")
        done = self.vm("restore", "early", "--no-reboot", status=FAILED)
        self.assertIn(b"--no-reboot was given", done.stderr)

    def test_clones_reset_too(self):
        whole, _, _ = self.unbroken(1)
        self.boot("--until", "icount:5000", "--save", "early")
        for _ in range(2):
            output = self.vm("restore", "early", "--tier", "clone", status=1).stdout
            self.assertTrue(whole.endswith(output))


unittest.main()
