#!/usr/bin/env python3
"""A machine saved while a shell loop prints goes on counting where it was, and its source unharmed."""
import machine


class Save(machine.VmTest):
    COUNT = 3000

    def start_counter(self, name):
        options = self.guest("counter", f"guest_count={self.COUNT}")
        serial = self.start("run", *options, "--name", name, "--store", self.store)
        serial.expect("count 40")
        return serial

    def assert_counts_to_the_end(self, text):
        numbers = [int(line[6:]) for line in text.replace("\r", "").split("\n") if line.startswith("count ")]
        self.assertTrue(numbers, text[-500:])
        self.assertEqual(numbers, list(range(numbers[0], self.COUNT + 1)))

    def test_after_resume_the_source_goes_on_and_the_copy_too(self):
        source = self.start_counter("counter")
        self.vm("save", "counter", "--store", self.store, "--tag", "moment", "--after", "resume")
        self.assertEqual(source.finish(), 0)
        whole = source.output.decode()
        self.assert_counts_to_the_end(whole)

        copy = self.start("restore", "moment", "--store", self.store)
        self.assertEqual(copy.finish(), 0)
        rest = copy.output.decode()
        self.assertLess(0, len(rest))
        self.assertLess(len(rest), len(whole))
        self.assertTrue(whole.endswith(rest), f"{rest[:200]!r} is not the end of what the source printed")

    def test_after_stop_the_restored_machine_prints_the_next_number(self):
        source = self.start_counter("counter")
        self.vm("save", "counter", "--store", self.store, "--tag", "moment", "--after", "stop")
        source.finish()
        copy = self.start("restore", "moment", "--store", self.store)
        self.assertEqual(copy.finish(), 0)
        self.assert_counts_to_the_end((source.output + copy.output).decode())

    def test_after_pause_the_source_waits_until_it_is_resumed(self):
        source = self.start_counter("counter")
        self.vm("save", "counter", "--store", self.store, "--tag", "moment", "--after", "pause")
        listed = self.vm("ps").stdout.decode()
        self.assertRegex(listed, r"counter.*paused")
        self.vm("resume", "counter")
        self.assertEqual(source.finish(), 0)
        self.assert_counts_to_the_end(source.output.decode())

    def test_a_machine_saved_by_until_continues_in_the_middle_of_the_line(self):
        options = self.guest("counter", "guest_count=300")
        whole = self.vm("run", *options).stdout
        first = self.vm("run", *options, "--until", "serial:count 77", "--save", "here", "--store", self.store)
        rest = self.vm("restore", "here", "--store", self.store)
        self.assertEqual(first.stdout + rest.stdout, whole)


if __name__ == "__main__":
    machine.main()
