#!/usr/bin/env python3
"""`vm run` on a terminal: raw mode while it runs, the escape key, and the window as before afterwards."""
import os
import pty
import select
import signal
import subprocess
import termios
import time
import unittest

import vm


class Terminal(vm.VmTest):
    def run_on_terminal(self, *arguments):
        self.master, slave = pty.openpty()
        self.addCleanup(os.close, self.master)
        self.addCleanup(os.close, slave)
        self.slave = slave
        self.before = termios.tcgetattr(slave)
        self.output = b""
        return self.start(*arguments, stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
                          preexec_fn=lambda: os.close(os.open(os.ttyname(slave), os.O_RDWR)))  # fmt: skip

    def expect(self, text, seconds=60):
        end = time.monotonic() + seconds
        while text not in self.output:
            self.assertLess(time.monotonic(), end, f"waited for {text!r}, got {self.output[-500:]!r}")
            if select.select([self.master], [], [], 0.2)[0]:
                self.output += os.read(self.master, 65536)

    def drain(self, process, seconds=30):
        end = time.monotonic() + seconds
        while process.poll() is None and time.monotonic() < end:
            if select.select([self.master], [], [], 0.1)[0]:
                self.output += os.read(self.master, 65536)
        return process.wait(timeout=1)

    def is_raw(self):
        return not termios.tcgetattr(self.slave)[3] & (termios.ICANON | termios.ECHO | termios.ISIG)

    def start_counter_there(self):
        process = self.run_on_terminal("run", *self.guest("counter"))
        self.expect(b"Ctrl-A x")
        self.assertTrue(self.is_raw())
        return process

    def assert_window_is_restored(self):
        self.assertEqual(termios.tcgetattr(self.slave), self.before)

    def test_the_escape_key_is_told_and_ends_the_machine(self):
        process = self.start_counter_there()
        os.write(self.master, b"\x01c")
        self.expect(b"running, count")
        os.write(self.master, b"\x01x")
        self.assertEqual(self.drain(process), 0)
        self.assert_window_is_restored()

    def test_control_c_goes_to_the_guest(self):
        process = self.start_counter_there()
        os.write(self.master, b"\x03")
        os.write(self.master, b"\x01c")
        self.expect(b"running, count")
        self.assertIsNone(process.poll())

    def test_the_window_is_restored_after_a_signal_and_after_a_crash(self):
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGSEGV, signal.SIGABRT):
            with self.subTest(signal=number):
                process = self.start_counter_there()
                process.send_signal(number)
                self.drain(process)
                self.assert_window_is_restored()

    def test_the_window_is_restored_while_the_program_is_stopped(self):
        process = self.start_counter_there()
        process.send_signal(signal.SIGTSTP)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED)
        self.assert_window_is_restored()
        process.send_signal(signal.SIGCONT)
        self.output = b""
        end = time.monotonic() + 30
        while not self.is_raw() and time.monotonic() < end:
            if select.select([self.master], [], [], 0.1)[0]:
                os.read(self.master, 65536)
        self.assertTrue(self.is_raw())


if __name__ == "__main__":
    unittest.main(verbosity=2)
