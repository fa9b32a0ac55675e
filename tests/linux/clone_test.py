#!/usr/bin/env python3
"""Clones of one saved machine: each finds a generation ID of its own, and its Linux gets the ACPI event.

Debian's cloud kernel is built without drivers/virt/vmgenid.c, so the test looks where that would look.
"""
import machine


class Clone(machine.VmTest):
    ID = 0xFEBFF000
    ASK = f"mknod /tmp/mem c 1 1; echo id=$(devmem {ID:#x} 64) $(cat /sys/firmware/acpi/interrupts/gpe00)"

    def asked(self, *options):
        """What a machine restored with `options` answers: its ID, and how many events there were."""
        serial = self.start("restore", "booted", "--store", self.store, *options)
        serial.type(self.ASK)
        serial.type("exit")
        self.assertEqual(serial.finish(), 0, serial.errors)
        answer = next(line for line in serial.lines() if line.startswith("id="))
        return answer.split()[:2]

    def test_each_clone_is_another_machine_and_a_plain_restore_is_the_same_one(self):
        booted = [*self.guest("shell"), "--until", "serial:guest: shell ready"]
        self.vm("run", *booted, "--save", "booted", "--store", self.store)
        first, second = self.asked("--tier", "clone"), self.asked("--tier", "clone")
        plain = self.asked()
        self.assertEqual([first[1], second[1], plain[1]], ["1", "1", "0"])
        self.assertEqual(len({first[0], second[0], plain[0]}), 3)


machine.main()
