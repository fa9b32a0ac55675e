#!/usr/bin/env python3
"""The lists of expected verdicts are held to what they promise, and a machine's output is read as it says."""
import pathlib
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "tools"))
sys.dont_write_bytecode = True

import run_selftests  # noqa: E402
import selftest_lists  # noqa: E402
from selftest_lists import Wrong, expected, judge, parse  # noqa: E402

LIST = """
state_test  pass quick
svm_test    skip quick  no SVM
debug_regs  fail rest   a #GP of ours   # and a comment
[ept=0]
state_test  fail quick  another
"""


class Lists(unittest.TestCase):
    def setUp(self):
        self.lists = parse(LIST, "list")
        self.rows = expected(self.lists, "")

    def test_every_committed_list_can_be_read(self):
        self.assertTrue(selftest_lists.series())
        for series in selftest_lists.series():
            selftest_lists.load(series)

    def test_an_expected_verdict_is_right(self):
        self.assertEqual(judge(self.rows["state_test"], "pass"), ("ok", ""))
        self.assertEqual(judge(self.rows["svm_test"], "skip"), ("skip", "no SVM"))
        self.assertEqual(judge(self.rows["debug_regs"], "fail"), ("known", "a #GP of ours"))

    def test_a_listed_failure_that_passes_is_wrong(self):
        result, words = judge(self.rows["debug_regs"], "pass")
        self.assertEqual(result, "wrong")
        self.assertIn("change the list", words)

    def test_what_fails_or_skips_against_the_list_is_wrong(self):
        for name, verdict in (("state_test", "fail"), ("state_test", "skip"), ("svm_test", "pass"),
                              ("svm_test", "fail"), ("debug_regs", "skip")):  # fmt: skip
            self.assertEqual(judge(self.rows[name], verdict)[0], "wrong", (name, verdict))

    def test_a_selftest_without_a_row_is_wrong_even_if_it_passes(self):
        self.assertEqual(judge(None, "pass")[0], "wrong")

    def test_a_variant_has_its_own_rows_and_only_those_are_quick(self):
        rows = expected(self.lists, "ept=0")
        self.assertEqual((rows["state_test"].verdict, rows["state_test"].when), ("fail", "quick"))
        self.assertEqual((rows["svm_test"].verdict, rows["svm_test"].when), ("skip", "rest"))

    def test_a_failure_or_skip_without_a_reason_is_refused(self):
        for line in ("a fail quick", "a skip rest", "a pass named", "a broken quick why", "a pass soon", "a pass",
                     "a long rest why"):  # fmt: skip
            with self.assertRaises(Wrong, msg=line):
                parse(line, "list")

    def test_a_name_twice_or_only_in_a_variant_is_refused(self):
        for text in ("a pass quick\na pass rest", "a pass quick\n[ept=0]\nb pass rest", "", "# nothing"):
            with self.assertRaises(Wrong, msg=text):
                parse(text, "list")


class Reading(unittest.TestCase):
    def outcome(self, end, before="some output\n"):
        return run_selftests.read("state_test", before + end, 1.0)

    def test_the_exit_status_is_the_verdict(self):
        for status, verdict in ((0, "pass"), (4, "skip"), (1, "fail"), (254, "fail"), (139, "fail")):
            outcome = self.outcome(f"\nguest: verdict state_test {status} from 1.5 to 3.25\n")
            self.assertEqual((outcome.verdict, outcome.guest), (verdict, 1.75))

    def test_a_complaint_of_the_kernel_fails_what_passed(self):
        outcome = self.outcome(
            "\nguest: verdict state_test 0 complaint from 1.5 to 3.25\n", "[ 1.0] WARNING: CPU: 0 PID: 1 at x.c\n"
        )
        self.assertEqual(outcome.verdict, "fail")
        self.assertIn("x.c", outcome.detail)

    def test_no_verdict_fails(self):
        self.assertEqual(self.outcome("").verdict, "fail")
        self.assertEqual(self.outcome("\nguest: verdict other 0 from 1.5 to 3.25\n").verdict, "fail")

    def test_a_selftest_cannot_give_its_own_verdict_in_the_middle_of_a_line(self):
        self.assertEqual(self.outcome("x guest: verdict state_test 0 from 1.5 to 3.25\n").verdict, "fail")


if __name__ == "__main__":
    unittest.main(verbosity=2)
