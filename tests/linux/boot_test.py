#!/usr/bin/env python3
"""Debian's kernel boots to a shell; what is typed on the serial port runs; power-off ends `vm run`."""
import machine

SCRIPT = """cat >/tmp/script <<'END'
sum=0
for n in $(seq 1 200); do sum=$((sum + n * n)); done
echo "squares $sum"
seq 1 3000 | sort -rn | head -n 1 | sed 's/^/largest /'
(echo left; sleep 1; echo right) | wc -l
test "$(dd if=/dev/zero bs=1k count=256 2>/dev/null | sha256sum | cut -c1-16)" = 8a39d2abd3999ab7 && echo zeros-hashed
END"""


class Boot(machine.VmTest):
    def to_shell(self, cpus):
        serial = self.start("run", *self.guest("shell", cpus=cpus))
        serial.expect(f"guest: shell ready on {cpus} cpus")
        serial.expect("guest#")
        return serial

    def runs_a_script_and_powers_off(self, cpus):
        serial = self.to_shell(cpus)
        for line in SCRIPT.split("\n"):
            serial.type(line)
        serial.type("sh /tmp/script; echo status-$?")
        serial.expect("squares 2686700")
        serial.expect("largest 3000")
        serial.expect("zeros-hashed")
        serial.expect("status-0")
        serial.type("grep -c ^processor /proc/cpuinfo | sed s/^/processors-/")
        serial.expect(f"processors-{cpus}")
        serial.type("poweroff -f")
        self.assertEqual(serial.finish(), 0)
        self.assertIn("Power down", serial.output.decode(errors="replace"))

    def test_a_shell_on_one_cpu_runs_a_typed_script(self):
        self.runs_a_script_and_powers_off(1)

    def test_a_shell_on_two_cpus_runs_a_typed_script(self):
        self.runs_a_script_and_powers_off(2)

    def test_a_shell_on_four_cpus_runs_a_typed_script(self):
        self.runs_a_script_and_powers_off(4)

    def test_sixteen_cpus_come_up_and_power_off(self):
        serial = self.to_shell(16)
        serial.type("grep -c ^processor /proc/cpuinfo | sed s/^/processors-/")
        serial.expect("processors-16")
        serial.type("poweroff -f")
        self.assertEqual(serial.finish(), 0)

    def test_ctrl_c_reaches_the_program_in_the_guest(self):
        serial = self.to_shell(1)
        # A child has the terminal before it says so: a shell that is about to fork may swallow a ^C.
        serial.type("sh -c 'echo going-$((1 + 1)); exec sleep 100000'")
        serial.expect("going-2")
        serial.process.stdin.write(b"\x03")
        serial.process.stdin.flush()
        serial.expect("guest#")
        serial.type("echo after-$((6 * 7))")
        serial.expect("after-42")

    def test_the_debug_exit_port_decides_the_exit_status(self):
        serial = self.to_shell(1)
        serial.type("outb 0xf4 3")
        self.assertEqual(serial.finish(), 7)

    def test_the_kernel_finds_nothing_to_complain_about(self):
        serial = self.to_shell(2)
        serial.type("dmesg | grep -E 'BUG:|WARNING:|Oops|Call Trace|unable to handle|protection fault'; echo checked-$?")
        serial.expect("checked-1")


if __name__ == "__main__":
    machine.main()
