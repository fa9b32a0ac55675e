"""Twenty-five clones of one 1 GiB machine that holds 400 MiB, each run for two seconds of its time and
saved: bytes added to the store, against as many full saves."""
import bench_machines

ENGINES = ("nestor",)
CLONES = 25
MIB = 1 << 20
ROWS = [
    ("added", f"{CLONES} clones: added to the store", "MiB", ""),
    ("share", f"{CLONES} clones: of {CLONES} full saves", "%", "at most 4"),
]


def used(context):
    stat = bench_machines.vm(context, "store", "stat")
    return stat["packBytes"] + stat["indexBytes"] + stat["manifestBytes"]


def measure(_engine, context):
    empty = used(context) if (context.scratch / "store").exists() else 0
    with bench_machines.Nestor(context, 1024, 350) as machine:
        machine.pause()
        until = int(machine.seconds()) + 3
        machine.save("origin", "--replace", "--after", "pause")
    full = used(context) - empty
    tags = [f"clone-{i}" for i in range(CLONES)]
    before = used(context)
    for tag in tags:
        bench_machines.vm(context, "restore", "origin", "--tier", "clone", "--name", tag,
                          "--until", f"seconds:{until}", "--save", tag)  # fmt: skip
    added = used(context) - before
    bench_machines.vm(context, "snap", "rm", "origin", *tags)
    return {"added": added / MIB, "share": 100 * added / (CLONES * full)}
