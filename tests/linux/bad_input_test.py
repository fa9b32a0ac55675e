#!/usr/bin/env python3
"""Wrong input gets a clear error and the right exit status, and leaves nothing behind."""
import os
import pathlib
import shutil
import subprocess

import machine

USAGE, CORRUPT, FAILED = 2, 6, 8


class BadInput(machine.VmTest):
    def assert_refused(self, arguments, status, *words):
        """`vm` ends with the status and an error that has all the words, and leaves nothing behind."""
        before = set(self.scratch.rglob("*"))
        done = subprocess.run(
            [machine.VM, *[str(a) for a in arguments]],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            env=self.environment,
            timeout=60,
        )
        told = f"$ vm {' '.join(str(a) for a in arguments)}\nstatus {done.returncode}\n{done.stderr}"
        self.assertEqual(done.returncode, status, told)
        self.assertTrue(done.stderr.strip(), told)
        for word in words:
            self.assertIn(word.lower(), done.stderr.lower(), told)
        left = [str(p) for p in set(self.scratch.rglob("*")) - before if p.name != "nestor"]  # directory of sockets
        self.assertEqual(left, [], "left behind")

    def run_with(self, **changed):
        options = {
            "kernel": machine.GUESTS / "vmlinuz",
            "initrd": machine.GUESTS / "shell.cpio",
            "memory": "256M",
            "append": "console=ttyS0 quiet",
        }
        options.update(changed)
        return ["run"] + [w for k, v in options.items() for w in (f"--{k.replace('_', '-')}", v)]


class Refused(BadInput):
    def test_a_missing_kernel_is_named(self):
        self.assert_refused(self.run_with(kernel="/nowhere/vmlinuz"), FAILED, "/nowhere/vmlinuz")

    def test_a_missing_initrd_is_named(self):
        self.assert_refused(self.run_with(initrd="/nowhere/initrd"), FAILED, "/nowhere/initrd")

    def test_a_directory_is_not_a_kernel(self):
        self.assert_refused(self.run_with(kernel=self.scratch), FAILED, str(self.scratch))

    def test_a_kernel_cut_at_any_length_is_refused(self):
        whole = (machine.GUESTS / "vmlinuz").read_bytes()
        cut = self.scratch / "vmlinuz"
        for length in (0, 1, 511, 512, 513, 0x1F1, 0x206, 0x264, 0x268, 4096, 20000, len(whole) // 2):
            with self.subTest(length=length):
                cut.write_bytes(whole[:length])
                self.assert_refused(self.run_with(kernel=cut), CORRUPT, "kernel")

    def test_a_text_file_is_not_a_kernel(self):
        text = self.scratch / "kernel"
        text.write_text("#!/bin/sh\necho hello\n" * 1000)
        self.assert_refused(self.run_with(kernel=text), CORRUPT, "kernel")

    def test_an_initrd_larger_than_ram_is_refused(self):
        large = self.scratch / "initrd"
        with large.open("wb") as file:
            file.truncate(300 << 20)
        self.assert_refused(self.run_with(initrd=large, memory="128M"), USAGE, "initrd")

    def test_cpu_counts_that_cannot_be_are_refused(self):
        for count in ("0", "17", "5000", "-1", "two", "1.5", "4294967297"):
            with self.subTest(count=count):
                self.assert_refused(self.run_with(cpus=count), USAGE, "cpu")

    def test_odd_memory_sizes_are_refused(self):
        for size in ("0", "1", "4095", "1K", "512", "12X", "M", "-512M", "1000000G", "99999999999999999999M", "1.5G"):
            with self.subTest(size=size):
                self.assert_refused(self.run_with(memory=size), USAGE, "memory")

    def test_an_unknown_cpu_model_is_refused_and_the_known_are_listed(self):
        self.assert_refused(self.run_with(cpu_model="pentium-9"), USAGE, "pentium-9", "nestor-v1")

    def test_an_unknown_event_is_refused(self):
        for event in ("noon", "serial:", "icount:", "icount:x", "seconds:-1"):
            with self.subTest(event=event):
                self.assert_refused([*self.run_with(), "--until", event], USAGE, "until")

    def test_an_unknown_verb_and_option_are_refused(self):
        self.assert_refused(["fly"], USAGE, "fly")
        self.assert_refused([*self.run_with(), "--colour", "red"], USAGE, "--colour")
        self.assert_refused([], USAGE)

    def test_a_machine_that_does_not_run_is_named(self):
        for verb in (["save", "ghost", "--store", self.store], ["pause", "ghost"], ["resume", "ghost"], ["stop", "ghost"]):
            with self.subTest(verb=verb[0]):
                self.assert_refused(verb, FAILED, "ghost")

    def test_a_digest_of_nothing_names_snapshots_and_machines(self):
        self.assert_refused(["digest", "ghost"], FAILED, "no snapshot ghost", "no machine ghost")

    def test_a_tag_and_a_store_that_are_not_there_are_named(self):
        self.assert_refused(["restore", "never", "--store", self.scratch / "nostore"], FAILED, "nostore")
        self.assertFalse((self.scratch / "nostore").exists())

    def test_a_socket_path_that_is_too_long_is_refused(self):
        deep = self.scratch / ("d" * 100) / ("e" * 100)
        deep.mkdir(parents=True)
        self.environment["XDG_RUNTIME_DIR"] = str(deep)
        self.assert_refused([*self.run_with(), "--name", "far"], USAGE, "long")


class Snapshots(BadInput):
    """Damage to what was saved: an early moment of a boot, so that the store is small."""

    SAVED_AT = 3_000_000
    LATER = 3_500_000

    def setUp(self):
        super().setUp()
        self.vm(*self.run_with(memory="96M"), "--until", f"icount:{self.SAVED_AT}", "--save", "early", "--store", self.store)

    def digest_after(self, store, tag="early"):
        """Restores and runs on a little: (exit status, digest of the machine then or None, what it said)."""
        arguments = ["restore", tag, "--store", store, "--until", f"icount:{self.LATER}", "--save", "later"]
        done = subprocess.run(
            [machine.VM, *[str(a) for a in arguments]],
            stdin=subprocess.DEVNULL, capture_output=True, env=self.environment, timeout=120,
        )  # fmt: skip
        if done.returncode != 0:
            return done.returncode, None, done.stderr.decode(errors="replace")
        shown = subprocess.run(
            [machine.VM, "digest", "later", "--store", str(store)], capture_output=True, env=self.environment
        )
        return done.returncode, shown.stdout, shown.stderr.decode(errors="replace")

    def files(self, store):
        """The files of a store that hold something, in a fixed order."""
        return sorted(p for p in pathlib.Path(store).rglob("*") if p.is_file() and p.stat().st_size > 0)

    def assert_exact_or_corrupt(self, which, damage, clean):
        """After damage(file) a restore is bit-exact, or refused as corrupt; nothing in between."""
        copy = self.scratch / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(self.store, copy)
        damage(copy / which.relative_to(self.store))
        status, digest, said = self.digest_after(copy)
        if status == 0:
            self.assertEqual(digest, clean, "a wrong machine was restored")
            return "exact"
        self.assertEqual(status, CORRUPT, said)
        self.assertTrue(said.strip())
        return "corrupt"

    def clean_digest(self):
        copy = self.scratch / "clean"
        shutil.copytree(self.store, copy)
        status, digest, said = self.digest_after(copy)
        self.assertEqual(status, 0, said)
        self.assertRegex(digest.decode(), "[0-9a-f]{64}")
        return digest

    def test_one_flipped_bit_gives_the_same_machine_or_exit_6(self):
        clean = self.clean_digest()
        files = self.files(self.store)
        state = 0x2545F4914F6CDD1D
        outcomes = []
        for _ in range(400 if os.environ.get("NESTOR_LONG") else 40):
            state = (state * 6364136223846793005 + 1442695040888963407) & (1 << 64) - 1
            which = files[len(outcomes) % len(files)]
            at = (state >> 16) % which.stat().st_size
            bit = 1 << (state >> 60 & 7)

            def flip(file, at=at, bit=bit):
                data = bytearray(file.read_bytes())
                data[at] ^= bit
                file.write_bytes(data)

            with self.subTest(file=which.name, at=at, bit=bit):
                outcomes.append(self.assert_exact_or_corrupt(which, flip, clean))
        self.assertIn("corrupt", outcomes)

    def test_a_snapshot_cut_at_any_length_is_refused_or_exact(self):
        clean = self.clean_digest()
        for which in self.files(self.store):
            size = which.stat().st_size
            for part in range(6):
                length = min(size * part // 6 + (part % 3) * 1000, size - 1)
                with self.subTest(file=which.name, length=length, of=size):
                    self.assert_exact_or_corrupt(which, lambda file, n=length: os.truncate(file, n), clean)

    def test_a_full_disk_while_saving_leaves_the_old_snapshot_readable(self):
        small = self.scratch / "small"
        small.mkdir()
        size = sum(p.stat().st_blocks * 512 for p in self.store.rglob("*")) + (1 << 20)
        # In a chroot nobody gets a user namespace, and root's mounts are not made private.
        private = ["unshare", "-rm"]
        if subprocess.run([*private, "true"], capture_output=True).returncode != 0:
            private = ["unshare", "-m", "--propagation", "unchanged"]
        script = (
            'trap \'umount "$0"\' EXIT; mount -t tmpfs -o size="$1" none "$2" && cp -r --sparse=always "$3" "$2/store" && '
            'head -c 100M /dev/zero >"$2/filler" 2>/dev/null; shift 3; "$@"; echo "status $?"; rm -f "$0/filler"; '
        )
        arguments = ["restore", "early", "--store", small / "store", "--until", "icount:900000000", "--save", "second"]
        again = ["restore", "early", "--store", small / "store", "--until", f"icount:{self.LATER}"]
        script += '"$VM" ' + " ".join(f"'{a}'" for a in again) + '; echo "again $?"'
        done = subprocess.run(
            [*private, "sh", "-c", script, small, str(size), small, self.store, machine.VM, *[str(a) for a in arguments]],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=300,
            env=dict(self.environment, VM=machine.VM),
        )  # fmt: skip
        if "status " not in done.stdout:
            self.skipTest(f"no private mounts here: {done.stderr.strip()[-200:]}")
        self.assertIn("status 8", done.stdout, done.stderr)
        self.assertRegex(done.stderr.lower(), "no space|full")
        self.assertIn("again 0", done.stdout, done.stderr)

    def test_a_second_writer_is_refused_or_waits_and_harms_nothing(self):
        commands = [
            [machine.VM, "restore", "early", "--store", self.store, "--until", f"icount:{self.LATER + i}", "--save", f"w{i}"]
            for i in range(2)
        ]
        running = [
            subprocess.Popen([str(w) for w in c], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                             stderr=subprocess.PIPE, env=self.environment)
            for c in commands
        ]  # fmt: skip
        for process in running:
            _, said = process.communicate(timeout=120)
            self.assertIn(process.returncode, (0, FAILED), said)
        self.assertIn(0, [p.returncode for p in running])
        listed = self.vm("snap", "ls", "--store", self.store).stdout.decode()
        self.assertIn("early", listed)


if __name__ == "__main__":
    machine.main()
