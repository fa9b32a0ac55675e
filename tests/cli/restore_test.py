#!/usr/bin/env python3
"""How a machine is restored: as the same run, as the one machine, as a clone; its time; damage; limits."""
import json
import resource
import subprocess
import unittest

import vm
from vm import CORRUPT, FAILED, INCOMPATIBLE, USAGE


class Restore(vm.VmTest):
    def save(self, tag="saved"):
        """A machine that stopped after the save."""
        self.vm("run", *self.guest("counter"), "--until", "icount:100000", "--save", tag)

    def restore(self, *options, status=0, tag="saved"):
        return self.vm("restore", tag, "--until", "icount:200000", *options, status=status)

    def digest_after(self, *options):
        self.restore(*options, "--save", "after", "--replace")
        return self.json("digest", "after")["machineDigest"]

    def test_a_plain_restore_is_the_same_run_as_often_as_wanted(self):
        self.save()
        lazy = self.digest_after()
        self.assertEqual(lazy, self.digest_after())
        self.assertEqual(lazy, self.digest_after("--memory", "eager"))

    def test_the_one_machine_is_resumed_once_and_the_refusal_says_how_to_clone(self):
        self.save()
        self.restore("--tier", "resume")
        refused = self.restore("--tier", "resume", status=INCOMPATIBLE)
        self.assertIn(b"--tier clone", refused.stderr)
        self.restore("--tier", "clone")

    def test_a_refused_name_costs_no_right_to_resume(self):
        self.save()
        self.start_counter("taken")
        self.restore("--tier", "resume", "--name", "taken", status=FAILED)
        self.restore("--tier", "resume")

    def test_clones_differ_and_the_same_run_does_not(self):
        self.save()
        plain = self.digest_after()
        first = self.digest_after("--tier", "clone")
        second = self.digest_after("--tier", "clone")
        self.assertEqual(len({plain, first, second}), 3)

    def test_the_clock_can_be_moved_and_unknown_words_are_usage_errors(self):
        self.save()
        self.restore("--clock", "at=2040-01-01T00:00:00Z,virtual")
        self.restore("--clock", "advance")
        for words in (["--clock", "tomorrow"], ["--clock", "at=never"], ["--tier", "twin"]):
            self.restore(*words, status=USAGE)

    def test_timing_tells_the_first_instruction(self):
        self.save()
        done = self.restore("--timing", "--json")
        self.assertGreater(json.loads(done.stderr)["firstInstructionMs"], 0)

    def test_a_damaged_page_ends_in_status_6_and_names_the_snapshot(self):
        self.save()
        for pack in (self.store / "packs").iterdir():
            data = bytearray(pack.read_bytes())
            for at in range(len(data) // 8, len(data) // 2, 64):
                data[at] ^= 0x5A
            pack.write_bytes(data)
        for memory in ("lazy", "eager"):
            done = self.restore("--memory", memory, status=CORRUPT)
            self.assertIn(b"saved", done.stderr)
            self.assertIn(b"vm store fsck", done.stderr)

    def test_what_0_1_0_saved_tells_what_is_different_here(self):
        [tag, *_] = self.json("snap", "import", vm.ROOT / "fixtures" / "board" / "0.1.0.export")["tags"]
        notes = {f["path"]: f for f in self.json("check", tag)["findings"] if not f["blocks"]}
        self.assertEqual(notes["images"]["have"], "none")
        self.assertIn(b"image      none: a reset ends the machine", self.vm("snap", "show", tag).stdout)
        count = self.json("snap", "show", tag)["count"]
        told = self.vm("restore", tag, "--until", f"icount:{count + 1}", "--save", "on").stderr.decode()
        self.assertIn("vm: note: images: have none", told)
        self.assertIn("vm: note: engineSemantics: saved under semantics 1, goes on under", told)
        for change in notes["engineSemantics"]["changes"]:
            self.assertIn(f"vm: note:   {change}\n", told)
        semantics = self.json("snap", "show", "on")["engineSemantics"]
        diff = self.json("snap", "diff", tag, "on")
        self.assertEqual([(d["path"], d["left"], d["right"]) for d in diff["manifest"]],
                         [("engineSemantics", 1, semantics)])  # fmt: skip
        self.assertIn(f"engineSemantics  1 -> {semantics}", self.vm("snap", "diff", tag, "on").stdout.decode())
        shown = self.vm("snap", "show", "on").stdout.decode()
        self.assertIn("restored   as the same run again, clock resumed", shown)
        self.assertIn("by " + self.vm("--version").stdout.decode().strip(), shown)
        self.assertIn("images", [f["path"] for f in self.json("check", "on")["findings"]])

    def test_a_file_size_limit_is_an_error_and_the_store_stays_sound(self):
        self.save()

        def limit():
            resource.setrlimit(resource.RLIMIT_FSIZE, (16384, 16384))

        words = ["restore", "saved", "--until", "icount:200000", "--save", "large"]
        done = subprocess.run(
            [vm.VM, *words], stdin=subprocess.DEVNULL, capture_output=True, env=self.environment, preexec_fn=limit
        )
        self.assertEqual(done.returncode, FAILED, done.stderr)
        self.vm("store", "fsck")
        self.assertEqual([s["tag"] for s in self.json("snap", "ls")], ["saved"])


unittest.main()
