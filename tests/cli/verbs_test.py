#!/usr/bin/env python3
"""Every verb of `vm`, on small guest programs."""
import json
import os
import re
import signal
import subprocess
import unittest

import vm
from vm import CORRUPT, FAILED, INCOMPATIBLE, USAGE

VERBS = [
    "run", "save", "restore", "ps", "pause", "resume", "stop", "debug", "check", "host dump", "snap ls", "snap show",
    "snap diff", "snap log", "snap tag", "snap verify", "snap rm", "snap export", "snap import",
    "store init", "store stat", "store gc", "store fsck", "store sync", "state decode", "state schema", "digest",
]  # fmt: skip


class Form(vm.VmTest):
    def test_every_verb_has_help_with_an_example_and_json(self):
        for verb in VERBS:
            with self.subTest(verb=verb):
                text = self.vm(*verb.split(), "--help").stdout.decode()
                self.assertRegex(text, rf"Example:\s+vm {verb}")
                self.assertIn("--json", text)

    def test_the_general_help_names_every_verb_and_the_exit_statuses(self):
        text = self.vm("--help").stdout.decode()
        for verb in VERBS:
            self.assertIn(verb.split()[0], text)
        self.assertIn("4 incompatible", text)

    def test_the_version_is_that_of_the_project(self):
        version = re.search(r"version: '(.+)'", (vm.ROOT / "meson.build").read_text()).group(1)
        self.assertEqual(self.vm("--version").stdout.decode().strip(), f"vm {version}")

    def test_an_error_in_json_has_code_and_message(self):
        for arguments in (["digest", "nothing"], ["fly"], ["run", "--kernel", "/nowhere"]):
            with self.subTest(arguments=arguments):
                done = subprocess.run([vm.VM, *arguments, "--json"], capture_output=True, env=self.environment)
                error = json.loads(done.stderr)["error"]
                self.assertEqual(error["code"], done.returncode)
                self.assertTrue(error["message"])

    def test_the_engine_kvm_is_refused_as_not_in_this_build(self):
        done = self.vm("run", *self.guest("mix"), "--engine", "kvm", status=INCOMPATIBLE)
        self.assertIn(b"--engine soft", done.stderr)

    def test_until_l2_stops_right_behind_the_first_entry(self):
        self.vm("run", *self.guest("vmx"), "--until", "l2", "--save", "l2")
        nested = self.json("state", "decode", "l2", "--unit", "vcpu[0].nested")["vcpu[0].nested"]
        self.assertTrue(nested["guestMode"])
        self.assertEqual(self.vm("restore", "l2", status=1).returncode, 1)

    def test_a_choice_that_there_is_not_is_told_before_anything_is_looked_for(self):
        for arguments in (
            ["debug", "nobody", "--block-irq", "maybe"],
            ["debug", "nobody", "--apicv", "maybe"],
            ["save", "nobody", "--after", "maybe"],
            ["save", "nobody", "--mode", "maybe"],
            ["save", "nobody", "--durability", "maybe"],
            ["save", "nobody", "--tag", "../maybe"],
            ["restore", "nothing", "--memory", "maybe"],
            ["restore", "nothing", "--tier", "maybe"],
            ["restore", "nothing", "--clock", "maybe"],
            ["restore", "nothing", "--until", "maybe"],
            ["run", "--kernel", "/nowhere", "--clock", "maybe"],
            ["run", "--kernel", "/nowhere", "--engine", "maybe"],
            ["run", "--kernel", "/nowhere", "--apicv", "maybe"],
        ):
            with self.subTest(arguments=arguments):
                told = self.vm(*arguments, status=USAGE).stderr.decode()
                self.assertIn(arguments[-2], told)
                self.assertIn("maybe", told)

    def test_an_empty_word_is_a_usage_error_that_names_it(self):
        for arguments in (
            ["run", "--kernel", ""],
            ["run", "--kernel", "/nowhere", "--name", ""],
            ["run", "--kernel", "/nowhere", "--initrd", ""],
            ["run", "--kernel", "/nowhere", "--until", ""],
            ["restore", "a", "--tier", ""],
            ["save", "c", "--tag", ""],
            ["save", "c", "--parent", ""],
            ["pause", "c", "--socket", ""],
            ["snap", "ls", "--store", ""],
            ["state", "decode", "a", "--unit", ""],
        ):
            with self.subTest(arguments=arguments):
                told = self.vm(*arguments, status=USAGE).stderr.decode()
                self.assertIn(arguments[-2], told)
                self.assertIn("empty", told)
        for verb in ("pause", "digest", "restore", "check"):
            self.assertIn(b"empty", self.vm(verb, "", status=USAGE).stderr)

    def test_a_verb_that_there_is_not_is_named(self):
        for arguments, told in (
            ([], "there is no verb"),
            (["fly"], "there is no verb 'fly'"),
            (["snap"], "there is no verb after snap"),
            (["snap", "fly", "a"], "there is no verb 'snap fly'"),
            (["ps", "fly"], "fly"),
            (["snap", "--fly"], "--fly"),
            (["--fly"], "--fly"),
        ):
            with self.subTest(arguments=arguments):
                self.assertIn(told, self.vm(*arguments, status=USAGE).stderr.decode())

    def test_an_empty_command_line_for_the_kernel_is_none(self):
        self.vm("run", *self.guest("mix", "64M"), "--append", "", status=1)

    def test_what_is_refused_leaves_no_store_behind(self):
        self.vm("run", "--kernel", "/nowhere", "--until", "icount:9", "--save", "a", status=FAILED)
        self.vm("restore", "nothing", "--until", "icount:9", "--save", "a", status=FAILED)
        self.assertFalse(self.store.exists())

    def test_save_without_until_is_a_usage_error(self):
        self.vm("run", *self.guest("mix"), "--save", "x", status=USAGE)

    def test_a_count_that_is_past_is_a_usage_error(self):
        self.vm("run", *self.guest("counter"), "--until", "icount:5000", "--save", "late")
        done = self.vm("restore", "late", "--until", "icount:100", status=USAGE)
        self.assertIn(b"past", done.stderr)


class Status(vm.VmTest):
    def test_a_debug_exit_is_the_exit_status(self):
        done = self.vm("run", *self.guest("faults64", "64M"), status=1)
        self.assertIn(b"ok ", done.stdout)

    def test_verbose_names_an_msr_that_does_not_exist_once(self):
        told = self.vm("run", *self.guest("faults64", "64M"), "--verbose", status=1).stderr
        self.assertEqual(told.count(b"0x12345678"), 1)
        self.assertEqual(self.vm("run", *self.guest("faults64", "64M"), status=1).stderr, b"")

    def test_a_guest_that_ends_before_the_event_fails_or_keeps_its_status(self):
        self.vm("run", *self.guest("faults64", "64M"), "--until", "serial:never", "--save", "x", status=1)
        self.assertEqual(self.json("snap", "ls"), [])

    def test_no_reboot_ends_a_reset_with_status_8(self):
        done = self.vm("run", *self.guest("triple", "64M"), "--no-reboot", status=FAILED)
        self.assertIn(b"reset", done.stderr)

    def test_an_early_end_tells_the_count_once_and_all_of_the_reason(self):
        words = [*self.guest("triple", "64M"), "--no-reboot", "--until", "serial:never", "--save", "x"]
        told = self.vm("run", *words, status=FAILED).stderr.decode()
        self.assertEqual(told.count("at count"), 1)
        self.assertIn("did not come", told)
        self.assertIn("--no-reboot was given", told)
        self.assertIn("nothing was saved", told)

    def test_a_closed_standard_stream_changes_nothing_in_the_machine(self):
        words = ["run", *self.guest("counter"), "--until", "icount:500000", "--save"]
        self.vm(*words, "open")
        for stream in (0, 1, 2):
            with self.subTest(stream=stream):
                closed = ["sh", "-c", f'exec "$@" {stream}>&-', "sh", vm.VM, *words, f"closed{stream}"]
                self.assertEqual(subprocess.run(closed, stdout=subprocess.DEVNULL, env=self.environment).returncode, 0)
                self.assertEqual(self.vm("digest", f"closed{stream}").stdout, self.vm("digest", "open").stdout)

    def test_signals_end_it_cleanly(self):
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            with self.subTest(signal=number):
                process = self.start_counter("c")
                process.send_signal(number)
                self.assertEqual(process.wait(timeout=30), FAILED)
                self.assertIn(b"stopped by", process.stderr.read())
                self.assertEqual(self.sockets(), [])


class Snapshots(vm.VmTest):
    def setUp(self):
        super().setUp()
        self.vm("run", *self.guest("counter"), "--until", "icount:2000000", "--save", "a", "--name", "origin")

    def test_a_restored_machine_continues_to_the_same_digest(self):
        self.vm("run", *self.guest("counter"), "--until", "icount:5000000", "--save", "whole")
        for way in ("lazy", "eager"):
            with self.subTest(memory=way):
                self.vm("restore", "a", "--memory", way, "--until", "icount:5000000", "--save", way)
                self.assertEqual(self.vm("digest", way).stdout, self.vm("digest", "whole").stdout)

    def test_the_output_of_both_parts_is_that_of_the_whole(self):
        whole = self.vm("run", *self.guest("counter"), "--until", "icount:5000000").stdout
        first = self.vm("run", *self.guest("counter"), "--until", "icount:1234567", "--save", "b").stdout
        rest = self.vm("restore", "b", "--until", "icount:5000000").stdout
        self.assertEqual(first + rest, whole)

    def test_a_taken_tag_is_refused_before_anything_runs(self):
        done = self.vm("run", *self.guest("counter"), "--until", "icount:9", "--save", "a", status=FAILED)
        self.assertEqual(done.stdout, b"")
        self.assertIn(b"--replace", done.stderr)
        self.vm("run", *self.guest("counter"), "--until", "icount:9", "--save", "a", "--replace")
        self.assertEqual(self.json("snap", "ls")[0]["count"], 9)

    def test_a_taken_tag_is_refused_as_early_when_its_snapshot_is_damaged(self):
        for manifest in (self.store / "manifests").iterdir():
            manifest.write_bytes(b"")
        done = self.vm("run", *self.guest("counter"), "--until", "icount:9", "--save", "a", status=FAILED)
        self.assertEqual(done.stdout, b"")
        self.assertIn(b"--replace", done.stderr)

    def test_a_store_that_cannot_be_written_to_is_told_before_anything_runs(self):
        self.store.chmod(0o555)
        self.addCleanup(self.store.chmod, 0o755)
        unprivileged = ["setpriv", "--bounding-set=-all"] if os.getuid() == 0 else []
        words = [vm.VM, "run", *self.guest("counter"), "--until", "icount:9", "--save", "b"]
        done = subprocess.run([*unprivileged, *words], capture_output=True, env=self.environment)
        self.assertEqual((done.returncode, done.stdout), (FAILED, b""))
        self.assertIn(b"Permission denied", done.stderr)

    def test_list_and_show_tell_where_it_comes_from(self):
        listed = self.json("snap", "ls")
        self.assertEqual([(e["tag"], e["machine"], e["count"]) for e in listed], [("a", "origin", 2000000)])
        shown = self.json("snap", "show", "a")
        self.assertIn("vcpu[0].cpu", [u["name"] for u in shown["units"]])
        self.assertIn("vcpu[0].cpu", self.vm("snap", "show", "a").stdout.decode())
        self.assertEqual(shown["machineDigest"], self.vm("digest", "a").stdout.decode().strip())

    def test_state_is_decoded_unit_by_unit(self):
        whole = self.json("state", "decode", "a")
        self.assertEqual(whole["machine"]["count"], 2000000)
        self.assertIn("rip", whole["vcpu[0].cpu"])
        one = self.json("state", "decode", "a", "--unit", "config")
        self.assertEqual(list(one), ["config"])
        self.vm("state", "decode", "a", "--unit", "toaster", status=USAGE)

    def test_the_schema_names_fields_with_their_types(self):
        structs = {s["name"]: s for s in self.json("state", "schema")}
        self.assertIn("Vcpu", structs)
        self.assertIn("count", [f["name"] for f in structs["Machine"]["fields"]])
        self.assertIn("count @0 :UInt64 in instructions", self.vm("state", "schema", "Machine").stdout.decode())

    def test_diff_names_the_fields_that_differ(self):
        self.vm("restore", "a", "--until", "icount:2000001", "--save", "b")
        fields = {d["path"]: d for d in self.json("snap", "diff", "a", "b")["fields"]}
        count = fields["machine.count"]
        self.assertEqual((count["type"], count["unit"]), ("UInt64", "instructions"))
        self.assertEqual((count["left"], count["right"]), (2000000, 2000001))
        self.assertIn("machine.count", self.vm("snap", "diff", "a", "b").stdout.decode())
        same = self.json("snap", "diff", "a", "a")
        self.assertTrue(same["same"])
        self.assertEqual(same["fields"], [])

    def test_check_compares_with_this_host_and_with_another(self):
        self.assertTrue(self.json("check", "a")["restorable"])
        host = json.loads(self.vm("host", "dump").stdout)
        self.assertEqual(self.json("host", "dump"), host)
        host["cpuModels"] = ["other"]
        host["memory"] = 1 << 20
        host["cpuFeatures"].remove("sse3")
        host["msrs"].remove("0x10")
        host["units"] = [u for u in host["units"] if u["name"] != "Rtc"]
        host["xcr0"] = "0x3"
        file = self.scratch / "host.json"
        file.write_text(json.dumps(host))
        found = self.json("check", "a", "--against", file, status=INCOMPATIBLE)
        self.assertFalse(found["restorable"])
        paths = {f["path"] for f in found["findings"] if f["blocks"]}
        self.assertEqual(paths, {"contract.memory", "contract.cpuModel", "contract.cpuid[0x1.0].ECX",
                                 "contract.msrs[0x10]", "contract.xcr0", "unit rtc"})  # fmt: skip
        for finding in found["findings"]:
            self.assertTrue(all(finding[key] for key in ("have", "need", "remedy")), finding)
        text = self.vm("check", "a", "--against", file, status=INCOMPATIBLE).stdout.decode()
        self.assertIn("sse3", text)
        file.write_text("{}")
        self.vm("check", "a", "--against", file, status=CORRUPT)

    def test_engine_semantics_are_told_and_only_newer_ones_are_in_the_way(self):
        host = json.loads(self.vm("host", "dump").stdout)
        here = host["engineSemantics"]
        self.assertEqual([row["number"] for row in host["semantics"]], list(range(1, here + 1)))
        self.assertEqual(self.json("snap", "show", "a")["engineSemantics"], here)
        self.assertIn(f"engine semantics {here},", self.vm("snap", "show", "a").stdout.decode())
        file = self.scratch / "host.json"
        host["engineSemantics"] = here + 1
        host["semantics"].append({"number": here + 1, "since": "9.9.9", "what": "the sky is green"})
        file.write_text(json.dumps(host))
        found = self.json("check", "a", "--against", file)
        self.assertTrue(found["restorable"])
        [finding] = [f for f in found["findings"] if f["path"] == "engineSemantics"]
        self.assertFalse(finding["blocks"])
        self.assertEqual(finding["remedy"], f"saved under semantics {here}, goes on under {here + 1}")
        self.assertEqual(finding["changes"], [f"{here + 1}: the sky is green"])
        told = self.vm("check", "a", "--against", file).stdout.decode().splitlines()
        self.assertIn(f"    {here + 1}: the sky is green", told)
        host["engineSemantics"] = here - 1
        for member in ("semantics", "physicalBits"):  # 0.1.0 did not tell them
            del host[member]
        file.write_text(json.dumps(host))
        found = self.json("check", "a", "--against", file, status=INCOMPATIBLE)
        self.assertEqual([f["path"] for f in found["findings"] if f["blocks"]], ["engineSemantics"])

    def test_a_host_without_cpu_models_has_none(self):
        host = json.loads(self.vm("host", "dump").stdout)
        host["cpuModels"] = []
        file = self.scratch / "host.json"
        file.write_text(json.dumps(host))
        found = self.json("check", "a", "--against", file, status=INCOMPATIBLE)["findings"]
        self.assertIn(("contract.cpuModel", "none"), [(f["path"], f["have"]) for f in found])

    def test_a_cpu_that_a_host_cannot_be_is_told_field_by_field(self):
        host = json.loads(self.vm("host", "dump").stdout)
        host["physicalBits"] = 40
        file = self.scratch / "host.json"
        file.write_text(json.dumps(host))
        found = self.json("check", "a", "--against", file, status=INCOMPATIBLE)
        [finding] = [f for f in found["findings"] if f["blocks"]]
        self.assertEqual(finding["path"], "contract.cpuid[0x80000008.0].EAX[7:0]")
        self.assertEqual((finding["have"], finding["need"]), ("at most 0x28", "0x2e"))

    def test_store_and_snapshot_are_sound_and_counted(self):
        self.assertEqual(self.json("store", "stat")["snapshots"], 1)
        self.assertEqual(self.json("store", "fsck")["findings"], [])
        self.vm("snap", "verify", "a")
        self.assertEqual(self.json("snap", "rm", "a"), {"removed": ["a"]})
        self.assertEqual(self.json("snap", "ls"), [])
        self.vm("restore", "a", status=FAILED)

    def test_a_machine_with_memory_above_4_gibibytes_is_restored(self):
        self.vm("run", *self.guest("counter", "8G"), "--until", "icount:100000", "--save", "big")
        self.vm("restore", "big", "--until", "icount:200000", "--save", "on")
        self.vm("run", *self.guest("counter", "8G"), "--until", "icount:200000", "--save", "whole")
        self.assertEqual(self.vm("digest", "on").stdout, self.vm("digest", "whole").stdout)

    def test_a_dry_run_restores_nothing(self):
        done = self.vm("restore", "a", "--dry-run")
        self.assertIn(b"can be restored", done.stdout)

    def test_digests_along_the_way_are_those_of_snapshots(self):
        done = self.vm("run", *self.guest("counter"), "--until", "icount:2500000", "--digest-every", "1000000")
        lines = dict(line.split() for line in done.stderr.decode().splitlines())
        self.assertEqual(list(lines), ["1000000", "2000000"])
        self.assertEqual(lines["2000000"], self.vm("digest", "a").stdout.decode().strip())
        again = self.vm("restore", "a", "--until", "icount:3000000", "--digest-every", "1000000")
        whole = self.vm("run", *self.guest("counter"), "--until", "icount:3000000", "--digest-every", "1000000")
        self.assertEqual(again.stderr.split()[-1], whole.stderr.split()[-1])

    def test_timing_tells_when_the_first_instruction_ran(self):
        done = self.vm("restore", "a", "--until", "icount:3000000", "--timing", "--json")
        self.assertGreater(json.loads(done.stderr)["firstInstructionMs"], 0)


class Debug(vm.VmTest):
    def start_in_l2(self, *arguments):
        process = self.start("run", *self.guest("vmx"), "--until", "l2", "--pause", "--name", "c", *arguments)
        self.wait_for(lambda: [m["state"] for m in self.json("ps")] == ["paused"])
        return process

    def pending(self, tag):
        self.vm("save", "c", "--tag", tag)
        return self.json("state", "decode", tag, "--unit", "vcpu[0].nested")["vcpu[0].nested"]["pending"]

    def test_what_it_switches_while_l2_runs_waits_in_the_snapshot(self):
        process = self.start_in_l2()
        self.assertFalse(self.json("debug", "c")["blockIrq"])
        self.assertFalse(self.pending("before")["apicvUpdate"])
        self.assertFalse(self.json("debug", "c", "--apicv", "off")["apicv"])
        self.assertTrue(self.pending("after")["apicvUpdate"])
        self.vm("restore", "after", status=1)  # all of the guest's checks pass
        self.vm("resume", "c")
        self.assertEqual(process.wait(timeout=60), 1)

    def test_interrupts_wait_while_they_are_blocked(self):
        process = self.start_in_l2()
        self.assertTrue(self.json("debug", "c", "--block-irq", "on")["blockIrq"])
        self.vm("resume", "c")  # L2 loops until an interrupt for L1 comes
        with self.assertRaises(subprocess.TimeoutExpired):
            process.wait(timeout=3)
        self.assertEqual(self.json("ps")[0]["state"], "running")
        # What is switched on and off while L2 loops is left for an exit that does not come.
        self.assertIn("loggedPages", self.json("save", "c", "--tag", "live", "--mode", "live"))
        self.assertTrue(self.pending("looping")["dirtyLogging"])
        self.vm("debug", "c", "--block-irq", "off")
        self.assertEqual(process.wait(timeout=60), 1)

    def test_a_word_other_than_on_and_off_is_a_usage_error(self):
        self.start_counter("c")
        self.vm("debug", "c", "--apicv", "maybe", status=USAGE)
        self.vm("run", *self.guest("mix"), "--apicv", "maybe", status=USAGE)


class Running(vm.VmTest):
    def test_a_machine_is_listed_paused_resumed_and_stopped(self):
        process = self.start_counter("c")
        self.assertEqual(self.json("pause", "c")["state"], "paused")
        self.assertRegex(self.vm("ps").stdout.decode(), r"c +paused")
        count = self.json("ps")[0]["count"]
        self.assertEqual(self.json("ps")[0]["count"], count)
        self.vm("resume", "c")
        self.wait_for(lambda: self.json("ps")[0]["count"] > count)
        self.vm("stop", "c")
        self.assertEqual(process.wait(timeout=30), 0)
        self.assertEqual(self.json("ps"), [])
        self.assertEqual(self.sockets(), [])

    def test_a_saved_machine_runs_on_waits_or_ends(self):
        process = self.start_counter("c")
        for after, state in (("resume", "running"), ("pause", "paused")):
            self.vm("save", "c", "--tag", after, "--after", after)
            self.assertEqual(self.json("ps")[0]["state"], state)
        paused = self.json("digest", "c", "--machine")["machineDigest"]
        self.assertEqual(paused, self.vm("digest", "pause").stdout.decode().strip())
        self.vm("save", "c", "--tag", "stop", "--after", "stop")
        self.assertEqual(process.wait(timeout=30), 0)
        self.assertEqual(self.vm("digest", "stop").stdout.decode().strip(), paused)

    def test_a_snapshot_without_clones_is_of_a_machine_that_ends(self):
        process = self.start_counter("c")
        for after in ("resume", "pause"):
            self.vm("save", "c", "--no-clones", "--after", after, status=USAGE)
        self.vm("save", "c", "--no-clones", "--after", "stop")
        self.assertEqual(process.wait(timeout=30), 0)
        self.vm("restore", "c", "--tier", "clone", status=INCOMPATIBLE)
        count = self.json("snap", "ls")[0]["count"]
        self.vm("restore", "c", "--tier", "resume", "--until", f"icount:{count + 1}")

    def test_a_save_that_fails_leaves_the_machine_running(self):
        process = self.start_counter("c")
        self.vm("save", "c", "--tag", "x")
        count = self.json("ps")[0]["count"]
        self.vm("save", "c", "--tag", "x", "--after", "stop", status=FAILED)
        self.vm("save", "c", "--tag", "../x", status=USAGE)
        self.vm("save", "c", "--tag", "y", "--after", "sleep", status=USAGE)
        self.vm("save", "c", "--tag", "y", "--store", "/proc/nowhere", status=FAILED)
        self.wait_for(lambda: self.json("ps")[0]["count"] > count)
        self.assertIsNone(process.poll())

    def test_two_machines_of_one_name_are_refused(self):
        self.start_counter("c")
        done = self.vm("run", *self.guest("counter"), "--name", "c", status=FAILED)
        self.assertIn(b"running already", done.stderr)

    def test_the_socket_of_a_killed_machine_is_replaced(self):
        process = self.start_counter("c")
        process.kill()
        process.wait()
        self.assertEqual(self.sockets(), ["c.sock"])
        self.assertEqual(self.json("ps"), [])
        self.start_counter("c")

    def test_a_socket_path_can_be_given(self):
        path = self.scratch / "here"
        process = self.start("run", *self.guest("counter"), "--socket", path, stdout=subprocess.DEVNULL)
        self.wait_for(lambda: path.is_socket())
        self.vm("stop", "any", "--socket", path)
        self.assertEqual(process.wait(timeout=30), 0)

    def test_a_machine_waits_paused_where_it_was_asked_to(self):
        process = self.start_counter("c", "--until", "icount:777777", "--pause")
        self.wait_for(lambda: self.json("ps")[0]["state"] == "paused")
        self.assertEqual(self.json("ps")[0]["count"], 777777)
        self.vm("resume", "c")
        self.wait_for(lambda: self.json("ps")[0]["count"] > 777777)
        self.assertIsNone(process.poll())

    def test_garbage_on_the_control_socket_does_no_harm(self):
        import socket
        import struct

        self.start_counter("c")
        path = str(self.scratch / "run" / "nestor" / "c.sock")
        for garbage in (b"\xff" * 100000, struct.pack("<I", 5) + b"hello", struct.pack("<I", 2) + b"{}", b"\0" * 9,
                        struct.pack("<I", 14) + b'{"verb":"fly"}'):  # fmt: skip
            with socket.socket(socket.AF_UNIX) as peer:
                peer.connect(path)
                try:
                    peer.sendall(garbage)
                except (BrokenPipeError, ConnectionResetError):
                    pass
        idle = [socket.socket(socket.AF_UNIX) for _ in range(30)]
        for peer in idle:
            peer.connect(path)
        self.assertEqual(self.json("ps")[0]["state"], "running")
        for peer in idle:
            peer.close()


if __name__ == "__main__":
    unittest.main(verbosity=2)
