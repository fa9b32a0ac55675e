#!/usr/bin/env python3
"""Debian's kvm.ko and kvm-intel.ko run a guest of their own on `vm`, whatever they use of VMX; the machine is
saved and restored where that guest is first entered."""
import machine

RESULT = [
    "l2 real mode 5050",
    "l2 interrupts 5",
    "l2 memory 980334517",
    "l2 result right",
]


class Nested(machine.VmTest):
    def results(self, done):
        self.assertNotIn(b"unchecked MSR", done.stdout, "KVM wanted what the processor does not have")
        lines = done.stdout.decode(errors="replace").replace("\r", "").split("\n")
        return [line for line in lines if line.startswith("l2 ")]

    def test_kvm_runs_its_guest_with_and_without_each_part_of_vmx(self):
        for parameters in (
            "",
            "ept=0",
            "unrestricted_guest=0",
            "vpid=0",
            "enable_shadow_vmcs=0",
            "enable_apicv=0,pml=0,preemption_timer=0",
        ):
            with self.subTest(parameters=parameters):
                done = self.vm("run", *self.guest("nested", f"guest_kvm={parameters}"))
                self.assertEqual(self.results(done), RESULT, done.stdout[-2000:])

    def test_two_vcpus_run_it_again_and_again(self):
        done = self.vm("run", *self.guest("nested", "guest_rounds=3", cpus=2))
        self.assertEqual(self.results(done), 3 * RESULT)

    def test_a_long_computation_in_its_guest_comes_out_right(self):
        done = self.vm("run", *self.guest("nested", "guest_l2=50"))
        self.assertEqual(self.results(done), RESULT[:3] + ["l2 rounds 4006945921"] + RESULT[3:])

    def test_its_guest_is_a_hypervisor_with_a_guest_of_its_own(self):
        done = self.vm("run", *self.guest("nested", "guest_vmm=l3"))
        self.assertIn(b"guest: nested done", done.stdout, done.stdout[-2000:])
        self.assertIn(b"ok the generator's value", done.stdout)
        self.assertNotIn(b"FAIL", done.stdout)

    def test_a_machine_saved_at_the_first_entry_goes_on_to_the_same_result(self):
        self.vm("run", *self.guest("nested"), "--until", "l2", "--save", "l2", "--store", self.store)
        for memory in ("eager", "lazy"):
            with self.subTest(memory=memory):
                done = self.vm("restore", "l2", "--memory", memory, "--store", self.store)
                self.assertEqual(self.results(done), RESULT)


if __name__ == "__main__":
    machine.main()
