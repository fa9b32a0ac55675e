#!/usr/bin/env python3
"""The layer check catches what it is there for, and lets through what the table allows."""
import pathlib
import subprocess
import sys
import tempfile
import unittest

CHECK = pathlib.Path(__file__).resolve().parents[2] / "tools" / "layer_check"


def check(files):
    """Runs the check over a tree made of {path: text}; gives (exit status, output)."""
    with tempfile.TemporaryDirectory() as root:
        for path, text in files.items():
            file = pathlib.Path(root, path)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        done = subprocess.run(
            [sys.executable, CHECK, "--root", root], capture_output=True, text=True, check=False
        )
        return done.returncode, done.stdout + done.stderr


class LayerCheck(unittest.TestCase):
    def assert_violation(self, files, place, reason):
        status, output = check(files)
        self.assertEqual(status, 1, output)
        self.assertIn(place, output)
        self.assertIn(reason, output)

    def test_lower_floors_may_be_included(self):
        status, output = check(
            {
                "engine/cpu/a.cpp": '#include "engine/cpu/a.hpp"\n#include "src/base/bits.hpp"\n',
                "src/machine/b.cpp": '#include "src/device/uart.hpp"\n#include <thread>\n',
                "snapshot/c.cpp": '#include <capnp/message.h>\n#include "engine/state/cpu.hpp"\n',
            }
        )
        self.assertEqual(status, 0, output)

    def test_a_higher_floor_is_named_with_file_and_line(self):
        self.assert_violation(
            {"engine/cpu/a.cpp": '// x\n#include "engine/hypervisor/l0.hpp"\n'},
            "engine/cpu/a.cpp:2:",
            "floor 5 and may not include engine/hypervisor, floor 6",
        )

    def test_siblings_of_floor_six_do_not_meet(self):
        self.assert_violation(
            {"snapshot/a.hpp": '#include "engine/hypervisor/l0.hpp"\n'}, "snapshot/a.hpp:1:", "share"
        )

    def test_the_snapshot_does_not_see_the_engine(self):
        self.assert_violation(
            {"snapshot/a.cpp": '#include "engine/cpu/cpu.hpp"\n'}, "snapshot/a.cpp:1:", "engine"
        )

    def test_the_engine_has_no_clock(self):
        self.assert_violation(
            {"engine/cpu/a.cpp": "#include <chrono>\n"}, "engine/cpu/a.cpp:1:", "clocks"
        )

    def test_cap_n_proto_stays_out_of_public_headers(self):
        self.assert_violation(
            {"snapshot/a.hpp": "#include <capnp/message.h>\n"}, "snapshot/a.hpp:1:", "Cap'n Proto"
        )

    def test_an_include_relative_to_the_own_folder_is_refused(self):
        self.assert_violation(
            {"src/base/a.cpp": '#include "a.hpp"\n', "src/base/a.hpp": "\n"},
            "src/base/a.cpp:1:",
            "include root",
        )

    def test_a_folder_without_a_floor_is_refused(self):
        self.assert_violation({"src/other/a.cpp": "\n"}, "src/other/a.cpp:1:", "no floor")

    def test_finding_no_files_is_a_failure(self):
        status, output = check({"README.md": "\n"})
        self.assertNotEqual(status, 0)
        self.assertIn("found no source files", output)


if __name__ == "__main__":
    unittest.main(verbosity=2)
