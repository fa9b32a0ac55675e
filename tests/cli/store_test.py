#!/usr/bin/env python3
"""`vm snap` and `vm store`: what people do with snapshots, as they meet it."""
import json
import os
import pty
import random
import select
import signal
import subprocess
import time
import unittest

import vm
from vm import CORRUPT, FAILED, USAGE


class StoreTest(vm.VmTest):
    """A store with three snapshots of one machine: a, b continues it, and c continues b."""

    def setUp(self):
        super().setUp()
        self.vm("run", *self.guest("counter"), "--until", "icount:2000000", "--save", "a", "--name", "origin")
        self.vm("restore", "a", "--until", "icount:2500000", "--save", "b")
        self.vm("restore", "b", "--until", "icount:3000000", "--save", "c")

    def tags(self):
        return [entry["tag"] for entry in self.json("snap", "ls")]


class Snap(StoreTest):
    def test_log_follows_parents_even_without_their_tags(self):
        names = lambda: [entry["tags"] for entry in self.json("snap", "log", "c")]
        self.assertEqual(names(), [["c"], ["b"], ["a"]])
        self.vm("snap", "tag", "b", "also-b")
        self.assertEqual(names(), [["c"], ["also-b", "b"], ["a"]])
        self.vm("snap", "rm", "b", "also-b")
        self.assertEqual(names(), [["c"], [], ["a"]])
        self.assertIn("(no tag)", self.vm("snap", "log", "c").stdout.decode())

    def test_a_tag_is_added_moved_and_renamed(self):
        digest = self.vm("digest", "a").stdout
        self.vm("snap", "tag", "a", "b", status=FAILED)
        self.vm("snap", "tag", "a", "b", "--replace")
        self.assertEqual(self.vm("digest", "b").stdout, digest)
        self.vm("snap", "tag", "a", "first", "--rename")
        self.assertEqual(self.tags(), ["b", "c", "first"])
        self.vm("snap", "tag", "first", "../x", status=USAGE)
        self.vm("snap", "tag", "nothing", "x", status=FAILED)

    def test_diff_counts_pages_by_region_and_lists_them(self):
        diff = self.json("snap", "diff", "a", "c", "--pages")
        pages = diff["pages"]
        self.assertGreater(pages["different"], 0)
        self.assertEqual(pages["different"], pages["changed"] + pages["appeared"] + pages["vanished"])
        self.assertEqual(pages["different"], sum(region["different"] for region in pages["regions"]))
        self.assertEqual(pages["different"], sum(run["pages"] for run in pages["runs"]))
        self.assertNotIn("runs", self.json("snap", "diff", "a", "c")["pages"])
        back = self.json("snap", "diff", "c", "a")["pages"]
        self.assertEqual((back["appeared"], back["vanished"]), (pages["vanished"], pages["appeared"]))
        self.assertEqual(self.json("snap", "diff", "a", "a")["pages"]["different"], 0)
        self.assertIn(" of memory (", self.vm("snap", "diff", "a", "c", "--pages").stdout.decode())

    def test_show_is_one_page(self):
        shown = self.json("snap", "show", "b")
        self.assertEqual([p["tag"] for p in shown["parents"]], ["a"])
        self.assertGreater(shown["uniqueBytes"], 0)
        self.assertGreater(shown["sharedBytes"], 0)
        self.assertEqual(shown["pauseMs"], shown["saveMs"])  # it stood still for all of it
        self.assertGreater(shown["saveMs"], 0)
        self.assertEqual(shown["logicalBytes"], shown["memory"])
        self.assertEqual(sum(r["nonzeroPages"] for r in shown["regions"]), shown["nonzeroPages"])
        self.assertEqual(
            sum(r["changedPages"] for r in shown["regions"]), self.json("snap", "diff", "a", "b")["pages"]["different"]
        )
        text = self.vm("snap", "show", "b").stdout.decode()
        for word in ("in use     [", "changed    [", "continues  a", "timings", "of its own", "vcpu[0]", "machine digest"):
            self.assertIn(word, text)
        self.assertLess(max(len(line) for line in text.splitlines()), 100)
        self.assertNotIn("in use", self.vm("snap", "show", "b", "--brief").stdout.decode())

    def test_an_exported_snapshot_is_imported_elsewhere_with_deduplication(self):
        file = self.scratch / "c.snap"
        told = self.json("snap", "export", "c", "--to", file)
        self.assertEqual(told["bytes"], file.stat().st_size)
        elsewhere = ["--store", self.scratch / "elsewhere"]
        first = self.json("snap", "import", file, *elsewhere)
        self.assertEqual(first["tags"], ["c"])
        self.assertEqual(first["newPages"], first["pages"])
        self.assertEqual(self.vm("digest", "c", *elsewhere).stdout, self.vm("digest", "c").stdout)
        self.vm("snap", "verify", "c", *elsewhere)
        self.vm("snap", "import", file, *elsewhere, status=FAILED)
        again = self.json("snap", "import", file, "--as", "again", *elsewhere)
        self.assertEqual((again["tags"], again["newPages"]), (["again"], 0))
        self.vm("restore", "again", *elsewhere, "--until", "icount:3100000", "--save", "on")

    def test_export_streams_through_a_pipe(self):
        words = [vm.VM, "snap", "export", "a", "b"]
        with subprocess.Popen(words, stdout=subprocess.PIPE, env=self.environment) as export:
            done = subprocess.run(
                [vm.VM, "snap", "import", "-", "--store", str(self.scratch / "piped"), "--json"],
                stdin=export.stdout, capture_output=True, env=self.environment, timeout=vm.PATIENCE,
            )  # fmt: skip
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(sorted(json.loads(done.stdout)["tags"]), ["a", "b"])
        self.assertEqual(self.json("snap", "diff", "a", "b", "--store", self.scratch / "piped")["same"], False)

    def test_a_damaged_or_cut_stream_is_refused_and_leaves_no_tag(self):
        file = self.scratch / "a.snap"
        self.vm("snap", "export", "a", "--to", file)
        whole = file.read_bytes()
        elsewhere = ["--store", self.scratch / "elsewhere"]
        for damaged in (whole[: len(whole) // 2], whole[:-1], b"", b"hello" * 100,
                        whole[:200] + bytes([whole[200] ^ 1]) + whole[201:]):  # fmt: skip
            file.write_bytes(damaged)
            self.vm("snap", "import", file, *elsewhere, status=CORRUPT)
            self.assertEqual(self.json("snap", "ls", *elsewhere), [])
        self.assertEqual(self.json("store", "fsck", *elsewhere)["findings"], [])

    def test_a_failed_export_leaves_no_file(self):
        self.vm("snap", "export", "nothing", "--to", self.scratch / "x", status=FAILED)
        self.vm("snap", "export", "a", "--to", "/proc/nowhere/x", status=FAILED)
        self.assertEqual(list(self.scratch.glob("x*")), [])


class Store(StoreTest):
    def test_gc_gives_back_what_no_tag_needs(self):
        self.assertEqual(self.json("store", "gc")["packsRemoved"], 0)
        before = self.json("store", "stat")["packBytes"]
        self.vm("snap", "rm", "a", "b", "c")
        self.assertGreater(self.json("store", "gc", "--dry-run")["packsRemoved"], 0)
        self.assertEqual(self.json("store", "stat")["packBytes"], before)
        done = self.json("store", "gc")
        self.assertEqual((done["bytesAfter"], self.json("store", "stat")["packBytes"]), (0, 0))
        self.assertEqual(self.json("store", "fsck")["findings"], [])
        self.assertIn("0 snapshots kept", self.vm("store", "gc").stdout.decode())

    def test_gc_keeps_what_other_tags_share(self):
        digests = {tag: self.vm("digest", tag).stdout for tag in ("a", "c")}
        self.vm("snap", "rm", "b")
        self.vm("store", "gc")
        for tag, digest in digests.items():
            self.vm("snap", "verify", tag)
            self.assertEqual(self.vm("digest", tag).stdout, digest)

    def test_stat_tells_what_deduplication_saves(self):
        stat = self.json("store", "stat")
        self.assertEqual(stat["logicalBytes"], sum(entry["memory"] for entry in self.json("snap", "ls")))
        self.assertLess(stat["packBytes"], stat["logicalBytes"] / 10)
        self.assertIn("bytes a page", self.vm("store", "stat").stdout.decode())

    def test_a_lost_index_is_made_anew(self):
        digest = self.vm("digest", "a").stdout
        index = [file for file in self.store.rglob("*") if file.is_file() and "index" in str(file)]
        self.assertTrue(index)
        for file in index:
            file.unlink()
        self.vm("store", "fsck", "--repair")
        self.assertEqual(self.json("store", "fsck")["findings"], [])
        self.vm("snap", "verify", "c")
        self.assertEqual(self.vm("digest", "a").stdout, digest)
        self.vm("restore", "c", "--until", "icount:3100000", "--save", "d")

    def test_a_flipped_byte_is_found_and_the_snapshots_it_touches_are_named(self):
        packs = sorted((file for file in self.store.rglob("*") if file.is_file()), key=lambda f: f.stat().st_size)
        pack = next(file for file in reversed(packs) if "index" not in str(file))
        content = bytearray(pack.read_bytes())
        content[len(content) // 2] ^= 0x10
        pack.write_bytes(content)
        report = self.json("store", "fsck", status=CORRUPT)
        self.assertTrue(report["findings"])
        for tag in report["damagedTags"]:
            self.vm("snap", "verify", tag, status=CORRUPT)
        for tag in set(self.tags()) - set(report["damagedTags"]):
            self.vm("snap", "verify", tag)

    def test_no_store_is_a_clear_error(self):
        for words in (["stat"], ["gc"], ["fsck"]):
            done = self.vm("store", *words, "--store", self.scratch / "nowhere", status=FAILED)
            self.assertIn(b"nowhere", done.stderr)


class Killed(vm.VmTest):
    def test_a_machine_killed_while_it_is_saved_loses_nothing_that_was_saved(self):
        chance = random.Random(7)
        saved = {}
        for i in range(12):
            process = self.start_counter(f"c{i}")
            self.vm("save", f"c{i}", "--tag", f"kept-{i}")
            saved[f"kept-{i}"] = self.vm("digest", f"kept-{i}").stdout
            with self.start("save", f"c{i}", "--tag", f"cut-{i}", "--mode", "live") as save:
                time.sleep(chance.random() * 0.05)
                process.kill()
                save.wait(timeout=vm.PATIENCE)
                if save.returncode == 0:
                    saved[f"cut-{i}"] = self.vm("digest", f"cut-{i}").stdout
            process.wait(timeout=vm.PATIENCE)
        for tag, digest in saved.items():
            self.assertEqual(self.vm("digest", tag).stdout, digest)
            self.vm("snap", "verify", tag)
        self.vm("store", "gc")
        self.assertEqual(self.json("store", "fsck")["findings"], [])
        self.vm("restore", "kept-0", "--until", "seconds:1", "--save", "on")


class Terminal(StoreTest):
    """What long work shows, and Ctrl-C. The work is an import whose stream comes slowly."""

    def import_slowly(self, **streams):
        self.stream = self.vm("snap", "export", "a").stdout
        return self.start("snap", "import", "-", "--as", "x", stdin=subprocess.PIPE, **streams)

    def feed(self, process, until):
        """A little more of the stream now and then until something happens."""
        end = time.monotonic() + vm.PATIENCE
        at = 0
        while not until():
            self.assertLess(time.monotonic(), end, "waited in vain")
            self.assertLess(at, len(self.stream) - 100, "the stream is at its end")
            process.stdin.write(self.stream[at : at + 16])
            process.stdin.flush()
            at += 16
            time.sleep(0.02)
        return self.stream[at:]

    def test_a_bar_shows_on_a_terminal_and_goes_away(self):
        master, slave = pty.openpty()
        self.addCleanup(os.close, master)
        self.addCleanup(os.close, slave)
        process = self.import_slowly(stderr=slave)
        seen = b""

        def shown():
            nonlocal seen
            while select.select([master], [], [], 0)[0]:
                seen += os.read(master, 65536)
            return b"importing" in seen

        rest = self.feed(process, shown)
        process.stdin.write(rest)
        process.stdin.close()
        process.stdin = None
        self.assertEqual(process.wait(timeout=vm.PATIENCE), 0)
        shown()
        self.assertTrue(seen.endswith(b"\r\x1b[K"), seen[-80:])

    def test_plain_lines_show_where_there_is_no_terminal(self):
        with open(self.scratch / "log", "wb+") as log:
            process = self.import_slowly(stderr=log)
            self.feed(process, lambda: b"vm: importing" in (self.scratch / "log").read_bytes())
            self.assertNotIn(b"\r", (self.scratch / "log").read_bytes())

    def test_control_c_ends_an_import_without_harm(self):
        process = self.import_slowly()
        rest = self.feed(process, lambda: b"importing" in self.peek(process))
        process.send_signal(signal.SIGINT)
        try:
            process.stdin.write(rest)
            process.stdin.close()
        except BrokenPipeError:
            pass
        process.stdin = None
        self.assertEqual(process.wait(timeout=vm.PATIENCE), FAILED)
        self.assertEqual(self.tags(), ["a", "b", "c"])
        self.vm("store", "gc")
        self.assertEqual(self.json("store", "fsck")["findings"], [])
        self.vm("snap", "verify", "a")

    def peek(self, process):
        self.seen = getattr(self, "seen", b"")
        while select.select([process.stderr], [], [], 0)[0]:
            self.seen += os.read(process.stderr.fileno(), 65536)
        return self.seen

    def test_nothing_is_shown_of_short_work_and_nothing_under_json(self):
        for words in (["snap", "verify", "a"], ["store", "fsck"], ["store", "gc", "--json"]):
            self.assertEqual(self.vm(*words).stderr, b"")


if __name__ == "__main__":
    unittest.main(verbosity=2)
