"""How fast a snapshot is verified, and how fast gc gives the space of a removed one back."""
import bench_machines

ENGINES = ("nestor",)
MIB = 1 << 20
ROWS = [
    ("verify", "vm snap verify, non-zero memory", "MB/s", "", False),
    ("gc", "vm store gc, packs before it", "MB/s", "", False),
]


def measure(_engine, context):
    with bench_machines.Nestor(context, 1024, 350) as machine:
        machine.save("kept", "--replace")
        machine.dirty(200)
        machine.save("gone", "--replace", "--after", "stop")
    verify = bench_machines.vm(context, "snap", "verify", "kept")["seconds"]
    size = bench_machines.vm(context, "store", "stat")["packBytes"]
    bench_machines.vm(context, "snap", "rm", "gone")
    gc = bench_machines.vm(context, "store", "gc")["seconds"]
    bench_machines.vm(context, "snap", "rm", "kept")
    return {"verify": 400 * MIB / verify / 1e6, "gc": size / gc / 1e6}
