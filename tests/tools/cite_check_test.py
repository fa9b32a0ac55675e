#!/usr/bin/env python3
"""The citation check finds what leads nowhere, and lets through what is there."""
import pathlib
import subprocess
import sys
import tempfile
import unittest

CHECK = pathlib.Path(__file__).resolve().parents[2] / "tools" / "cite_check"

DESIGN = """# Design

| 1 | `src/base` | x | y |
| 5 | `engine/cpu` | x | y |

## The house

## Rule 1: The schema is the state

## Rule 2: Time is instructions
"""
FLOORS = 'FLOORS = {"src/base": 1, "engine/cpu": 5, "src/migrate": 8}\n'


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


class CiteCheck(unittest.TestCase):
    def assert_fine(self, files):
        status, output = check(files)
        self.assertEqual(status, 0, output)

    def assert_found(self, files, *findings):
        status, output = check(files)
        self.assertEqual(status, 1, output)
        for finding in findings:
            self.assertIn(finding, output)
        self.assertIn(f", {len(findings)} findings", output)

    def test_what_exists_may_be_cited(self):
        self.assert_fine(
            {
                "engine/cpu/a.hpp": "int value;\n",
                "engine/cpu/a_more.cpp": (
                    "// See a.hpp, engine/cpu/a.hpp, cpu/a.hpp, engine/cpu, a*.cpp, a.{hpp,def} and\n"
                    "/* `value`, `f(value)`, f(); any x.hpp */\nint f();\n"
                ),
                "engine/cpu/a.def": "// std::string is not ours\nROW(1'000, \"// src/none.cpp\")\n",
                "tools/run": "#!/bin/sh\necho 'src/none.cpp' # of engine/cpu/a.hpp, --fast\nrun --fast\n",
                "fixtures/0.1.0/host.json": "",
                "CONTRIBUTING.md": "fixtures/VERSION, `fixtures/X.Y.Z/host.json`\n",
                "tests/a_test.py": '"""Of a.hpp."""\nx = {\n    "src/none.cpp": 1,\n}\n',
                "tests/a.asm": "f: db 'src/none.cpp;'    ; a.hpp\n",
                "schema/one.capnp": "# engine/state/one.hpp is made of this.\n",
                "README.md": "`tools/run --fast` reads `engine/cpu/a.hpp`; ninja -C build tests/fuzz_a\n",
            }
        )

    def test_a_file_that_is_not_there_is_named_with_its_line(self):
        self.assert_found(
            {
                "engine/cpu/a.cpp": "int a;\n\n// As engine/cpu/gone.cpp has it.\n",
                "engine/cpu/b.cpp": "int i = 1'000; // One's.\n/// Two: gone_too.hpp.\n",
                "snapshot/meson.build": "x = 1 # see conventions.md\n",
                "tools/run": "#!/bin/sh\n# wire*.hpp\n",
                "tests/a.asm": "nop ; tests/guests/nothing\n",
                "tests/a_test.py": '"""A.\n\nOf no.py."""\n',
                "README.md": "one\n`src/{base,none}`\nfixtures/VERSION/none.list\n",
                "src/base/c.hpp": "",
            },
            "engine/cpu/a.cpp:3: no file engine/cpu/gone.cpp",
            "engine/cpu/b.cpp:2: no file gone_too.hpp",
            "snapshot/meson.build:1: no file conventions.md",
            "tools/run:2: no file wire*.hpp",
            "tests/a.asm:1: no file tests/guests/nothing",
            "tests/a_test.py:3: no file no.py",
            "README.md:2: no file src/{base,none}",
            "README.md:3: no file fixtures/VERSION/none.list",
        )

    def test_a_name_that_no_code_has_is_found(self):
        self.assert_found(
            {
                "src/a.cpp": "// `gone`, Type::gone and gone() were here.\nstruct Type {};\n",
                "src/b.cpp": 'auto s = "a"; // `gone_too`\n',
            },
            "src/a.cpp:1: nothing is called gone\n",
            "src/a.cpp:1: nothing is called Type::gone",
            "src/a.cpp:1: nothing is called gone()",
            "src/b.cpp:1: nothing is called gone_too",
        )

    def test_being_cited_elsewhere_does_not_make_a_name_exist(self):
        self.assert_found(
            {"src/a.cpp": "// `gone`\n", "README.md": "gone and gone again\n"}, "nothing is called gone"
        )

    def test_an_option_that_no_code_has_is_found(self):
        self.assert_found({"README.md": "`vm run --gone`\n"}, "README.md:1: no option --gone")

    def test_rules_and_headings_of_the_design_exist(self):
        files = {"DESIGN.md": DESIGN, "tools/layer_check": FLOORS}
        files |= {"engine/cpu/b.cpp": "", "src/base/b.cpp": ""}
        fine = '// DESIGN.md, rule 1; DESIGN.md, rules 1\n// and 2; DESIGN.md, "The\n// house".\n'
        self.assert_fine(files | {"src/base/a.cpp": fine})
        self.assert_found(
            files | {"src/base/a.cpp": '// DESIGN.md, rules 2 and\n// 3. DESIGN.md, "Roof"; design rule 1\n'},
            "src/base/a.cpp:1: DESIGN.md has no rule 3",
            'src/base/a.cpp:2: DESIGN.md has no heading "Roof"',
            "src/base/a.cpp:2: which design?",
        )

    def test_documents_show_the_floors_as_they_are(self):
        files = {"tools/layer_check": FLOORS, "engine/cpu/b.cpp": "", "src/base/b.cpp": ""}
        drawn = "\n    5   engine/cpu     of `src/base`\n    1   src/base\n"
        self.assert_fine(files | {"DESIGN.md": DESIGN, "README.md": drawn})
        self.assert_found(
            files | {"DESIGN.md": DESIGN.replace("| 5 |", "| 4 |"), "README.md": drawn.replace("cpu ", "gpu ")},
            "README.md:2: no file engine/gpu",
            "DESIGN.md:1: engine/cpu: floor 5 in tools/layer_check, 4 here",
            "README.md:1: engine/cpu: floor 5 in tools/layer_check, None here",
            "README.md:1: engine/gpu: floor None in tools/layer_check, 5 here",
        )

    def test_chapters_of_other_editions_are_found(self):
        self.assert_fine(
            {
                "src/a.cpp": "// SDM 3A 8.3, figures 8-2 and 8-10, SDM 3C tables 28-13, 28-14, SDM 2 IRET,\n"
                "// SDM 3D appendix B, SDM\n// 3D A.3.1, SDM 4 chapter 2, SDM 3B 18.2 (PCI 2.3, 7.1)\n"
            }
        )
        self.assert_found(
            {
                "src/a.cpp": "// SDM 3A 4.1, 7.3\n// SDM 3B 17.2.4\n// SDM 3A chapter\n// 21\n"
                "// SDM 3C chapters 24 to 33, SDM 3C table\n// 23-1; SDM 5 1.1\n"
            },
            "src/a.cpp:1: SDM 3A 7.3: no chapter 7",
            "src/a.cpp:2: SDM 3B 17.2.4: no chapter 17",
            "src/a.cpp:3: SDM 3A 21: no chapter 21",
            "src/a.cpp:5: SDM 3C 33: no chapter 33",
            "src/a.cpp:5: SDM 3C 23-1: no chapter 23",
        )

    def test_finding_no_comments_is_a_failure(self):
        status, output = check({"src/a.cpp": "int a;\n"})
        self.assertNotEqual(status, 0)
        self.assertIn("found no comments", output)


if __name__ == "__main__":
    unittest.main(verbosity=2)
