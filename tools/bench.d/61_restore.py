"""Restoring machines that had booted, of 128 MiB to 32 GiB: from the start of the process to the first
instruction (lazy; the median of several restores), and to the last page (eager). QEMU reads the whole file
first, so both are one there."""
import statistics
import time

import bench_machines

SIZES = [128, 1024, 8192, 32768]
FIRST_INSTRUCTIONS = 9  # restores that are timed in each repeat: one takes milliseconds
MIB = 1 << 20
ROWS = [
    *((f"first_{size}", f"first instruction, {size} MiB", "ms", "at most 5") for size in SIZES),
    ("lazy", "all of 1 GiB in memory, it runs on", "ms", ""),
    ("resident", "all of 1 GiB before it runs", "ms", ""),
    ("eager_rate", "eager restore, logical memory", "GB/s", "at least 1", False),
]


def nestor_snapshot(context, size):
    tag = f"booted-{size}"
    if tag not in context.kept:
        hold = 350 if size == 1024 else 16
        with bench_machines.Nestor(context, size, hold, name=tag) as machine:
            machine.save(tag, "--after", "stop")
        context.kept.add(tag)
    return tag


def qemu_snapshot(context):
    file = context.scratch / "qemu-restore.state"
    if "qemu-restore" not in context.kept:
        with bench_machines.Qemu(context, 1024, 350) as machine:
            machine.save(file)
        context.kept.add("qemu-restore")
    return file


def restored(context, tag, memory, instructions=1):
    count = bench_machines.vm(context, "snap", "show", tag, "--brief")["count"]
    return bench_machines.vm(context, "restore", tag, "--memory", memory, "--timing",
                             "--until", f"icount:{count + instructions}")  # fmt: skip


def measure(engine, context):
    if engine == "nestor":
        results = {}
        for size in SIZES:
            tag = nestor_snapshot(context, size)
            times = [restored(context, tag, "lazy")["firstInstructionMs"] for _ in range(FIRST_INSTRUCTIONS)]
            results[f"first_{size}"] = statistics.median(times)
        eager = restored(context, "booted-1024", "eager")["firstInstructionMs"]
        lazy = restored(context, "booted-1024", "lazy", 1_000_000_000)["residentMs"]
        return {**results, "lazy": lazy, "resident": eager, "eager_rate": 1024 * MIB / eager / 1e6}
    file = qemu_snapshot(context)
    start = time.monotonic()
    with bench_machines.Qemu(context, 1024, 350, ("-incoming", f"exec:cat {file}")) as machine:
        while machine.ask("query-status")["status"] != "running":
            time.sleep(0.001)
        ms = (time.monotonic() - start) * 1e3
    return {"first_1024": ms, "lazy": ms, "resident": ms, "eager_rate": 1024 * MIB / ms / 1e6}
