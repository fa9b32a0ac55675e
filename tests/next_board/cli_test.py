#!/usr/bin/env python3
"""The program of today and that of tomorrow, whose second board has a device more (see meson.build here).

What 0.1.0 saved runs on both. Its exports are found by name: fixtures/board, and the folder of that release, if any.
"""
import os
import pathlib
import sys
import unittest
import unittest.mock

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "cli"))
import vm  # noqa: E402

FIXTURES = pathlib.Path(os.environ.get("FIXTURES_DIR", vm.ROOT / "fixtures"))
NEXT = os.environ.get("VM_NEXT", str(vm.ROOT / "build/release/tests/next_board/vm_next"))
DARK = "port ffffffff memory ffffffff acpi 0"
LIT = "port ffffff5a memory 12345678 acpi 1"


class NextBoardTest(vm.VmTest):
    def tomorrow(self):
        return unittest.mock.patch.object(vm, "VM", NEXT)

    def take(self, export):
        return self.json("snap", "import", export)["tags"]

    def make_second(self):
        """A snapshot of a machine of the second board, called `second`."""
        with self.tomorrow():
            done = self.vm("run", *self.guest("board", "4M"), "--until", "icount:800000", "--save", "second")
        self.assertEqual({LIT}, set(done.stdout.decode().splitlines()[:-1]))

    def findings(self, *arguments, status=vm.INCOMPATIBLE):
        found = self.json(*arguments, status=status)["findings"]
        return {f["path"]: (f["have"], f["need"].split(" ")[0], f["blocks"]) for f in found}

    def test_what_0_1_0_saved_is_taken_by_both(self):
        exports = sorted(
            p for folder in ("board", "0.1.0") for p in (FIXTURES / folder).rglob("*.export") if p.is_file()
        )
        self.assertTrue(exports, "no export of 0.1.0 was found")
        for export in exports:
            for tag in self.take(export):
                for program in (vm.VM, NEXT):
                    with self.subTest(f"{export.name} {tag}"), unittest.mock.patch.object(vm, "VM", program):
                        self.assertTrue(self.json("check", tag)["restorable"])
                        self.assertTrue(self.json("restore", tag, "--tier", "clone", "--dry-run")["restorable"])

    def test_a_machine_of_0_1_0_goes_on_without_the_device(self):
        self.take(FIXTURES / "board/0.1.0.export")
        with self.tomorrow():
            done = self.vm("restore", "after", "--until", "icount:5000000", "--save", "later")
            lines = done.stdout.decode().splitlines()
            self.assertGreater(len(lines), 2)
            self.assertEqual({DARK}, set(lines[1:-1]))
        self.assertTrue(self.json("check", "later")["restorable"])

    def test_today_tells_all_that_is_in_the_way_of_a_machine_of_tomorrow(self):
        self.make_second()
        found = self.findings("check", "second")
        self.assertEqual(("1", "2", True), found.pop("config.board"))
        self.assertEqual(("unknown on board 2 with 1 vCPU", "type", True), found.pop("unit lamp"))
        self.assertEqual({}, found)
        self.assertEqual(self.findings("check", "second"), self.findings("restore", "second", "--dry-run"))
        told = self.vm("restore", "second", status=vm.INCOMPATIBLE).stderr.decode()
        for words in ("config.board: have 1, need 2", "unit lamp: have unknown on board 2", "use a newer vm there"):
            self.assertIn(words, told)
        self.assertNotIn("corrupt", told)

    def test_tomorrow_takes_it_there_and_a_host_of_today_is_told_not_to(self):
        self.make_second()
        today = self.scratch / "today.json"
        today.write_bytes(self.vm("host", "dump").stdout)
        with self.tomorrow():
            tomorrow = self.scratch / "tomorrow.json"
            tomorrow.write_bytes(self.vm("host", "dump").stdout)
            self.assertTrue(self.json("check", "second")["restorable"])
            self.assertTrue(self.json("check", "second", "--against", tomorrow)["restorable"])
            for host in (today, FIXTURES / "board/host-0.1.0.json"):
                found = self.findings("check", "second", "--against", host)
                self.assertEqual(("1", "2", True), found.pop("config.board"))
                self.assertEqual(("unknown", "type", True), found.pop("unit lamp"))
                if host != today:  # 0.1.0 takes its own semantics only, and knows no boot images
                    self.assertEqual("1", found.pop("engineSemantics")[0])
                    self.assertEqual(("1", "2", True), found.pop("format"))
                self.assertEqual({}, found)
            done = self.vm("restore", "second", "--until", "serial:acpi 1")
            self.assertIn(LIT, done.stdout.decode())

    def test_a_machine_of_0_1_0_may_go_to_any_of_them(self):
        self.take(FIXTURES / "board/0.1.0.export")
        hosts = [FIXTURES / "board/host-0.1.0.json"]
        with self.tomorrow():
            hosts.append(self.scratch / "tomorrow.json")
            hosts[-1].write_bytes(self.vm("host", "dump").stdout)
        for host in hosts:
            self.assertTrue(self.json("check", "before", "--against", host)["restorable"])


if __name__ == "__main__":
    unittest.main()
