"""Saving a 1 GiB machine that holds 400 MiB, and once more after 57 MiB were written to. Nestor's saves
are on the disk when they return (fsync); QEMU's files are in the page cache."""
import bench_machines

ROWS = [
    ("zstd_time", "full save, QEMU through zstd", "s", "ratio at most 1"),
    ("plain_time", "full save, QEMU plain", "s", ""),
    ("zstd_size", "its size, QEMU through zstd", "MiB", "ratio at most 1"),
    ("plain_size", "its size, QEMU plain", "MiB", ""),
    ("second_pause", "second save, 57 MiB dirty: pause", "ms", "at most 15"),
    ("second_time", "second save: total", "s", ""),
    ("second_size", "second save: bytes added", "MiB", ""),
]
MIB = 1 << 20


def measure(engine, context):
    if engine == "nestor":
        with bench_machines.Nestor(context, 1024, 350) as machine:
            full = machine.save("full", "--replace", "--mode", "stop", "--parent", "none")
            machine.dirty(57)
            second = machine.save("second", "--replace", "--mode", "live")
        bench_machines.vm(context, "snap", "rm", "full", "second")
        bench_machines.vm(context, "store", "gc")
        return {
            "zstd_time": full["seconds"], "plain_time": full["seconds"],
            "zstd_size": full["bytesWritten"] / MIB, "plain_size": full["bytesWritten"] / MIB,
            "second_pause": second["pauseMs"], "second_time": second["seconds"],
            "second_size": second["bytesWritten"] / MIB,
        }  # fmt: skip
    with bench_machines.Qemu(context, 1024, 350) as machine:
        file = context.scratch / "qemu.state"
        zstd = machine.save(file, "zstd -q -1 -T2")
        plain = machine.save(file)
        machine.dirty(57)
        second = machine.save(file, "zstd -q -1 -T2")
        file.unlink()
    return {
        "zstd_time": zstd["seconds"], "plain_time": plain["seconds"],
        "zstd_size": zstd["bytes"] / MIB, "plain_size": plain["bytes"] / MIB,
        "second_pause": second["pauseMs"], "second_time": second["seconds"],
        "second_size": second["bytes"] / MIB,
    }  # fmt: skip
