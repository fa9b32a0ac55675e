"""Saving and restoring a 512 MiB machine whose hypervisor, Debian's KVM, has just entered its guest, beside
the same machine shortly before. Both pauses are where the machine stands still on its own."""
import bench_machines

ENGINES = ("nestor",)
ROWS = [
    ("l1_save", "full save, L1 active", "ms", ""),
    ("l2_save", "full save, L2 active", "ms", ""),
    ("l1_restore", "first instruction, L1 active", "ms", "at most 5"),
    ("l2_restore", "first instruction, L2 active", "ms", "at most 5"),
]
MOMENTS = {"l1": "serial:kvm_intel.nested", "l2": "l2"}


class AtMoment(bench_machines.Nestor):
    """The image `nested`, run to a moment and paused there."""

    image = "nested"
    ready = "paused at count"

    def __init__(self, context, name, event):
        super().__init__(context, 512, 0, name, ("--until", event, "--pause"))


def measure(engine, context):
    results = {}
    for name, event in MOMENTS.items():
        with AtMoment(context, name, event) as machine:
            saved = machine.save(name, "--replace", "--mode", "stop", "--parent", "none")
        count = bench_machines.vm(context, "snap", "show", name, "--brief")["count"]
        restored = bench_machines.vm(context, "restore", name, "--timing", "--until", f"icount:{count + 1}")
        bench_machines.vm(context, "snap", "rm", name)
        results |= {f"{name}_save": saved["seconds"] * 1e3, f"{name}_restore": restored["firstInstructionMs"]}
    return results
