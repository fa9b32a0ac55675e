"""A bare-metal hypervisor in the machine (tests/guests/vmx_bench.asm): its guest beside itself, and how
often a second control passes from one to the other and back. QEMU's TCG has no VMX. In seconds of the
process' own CPU time, so that what else the host does matters less."""
import collections
import os
import pathlib
import subprocess

import bench_machines

ENGINES = ("nestor",)
BARE_METAL_DONE = 1  # a write of 0 to port 0xf4
ROWS = [
    ("integer_l1", "integer loop, bare-metal L1", "Minsn/s", "", False),
    ("integer_l2", "integer loop in its L2", "Minsn/s", "", False),
    ("integer_ratio", "integer loop, L2 / L1", "", "at least 0.95", False),
    ("miss_l1", "load with a TLB miss, L1", "ns", ""),
    ("miss_l2", "load with a TLB miss, L2 with EPT", "ns", ""),
    ("miss_ratio", "load with a TLB miss, L2 / L1", "", ""),
    ("cpuid", "nested exits, CPUID", "k/s", "", False),
    ("violation", "nested exits, EPT violation", "k/s", "", False),
    ("kvm_cpuid", "CPUID exits of Debian's KVM", "k/s", "", False),
    ("kvm_touch", "pages that its guest touches first", "k/s", "", False),
]


def cpu_seconds(process):
    """CPU time of all threads so far."""
    tasks = pathlib.Path(f"/proc/{process.pid}/task")
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks.iterdir()) / 1e9


def rates(command, status):
    """Of each loop that prints `bench NAME start` and `bench NAME end iterations N`, perhaps several
    times: N a second. The command has to end with `status`."""
    started, iterations, seconds, tail = {}, collections.Counter(), collections.Counter(), []
    with subprocess.Popen(
        [os.fspath(word) for word in command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, errors="replace",
    ) as process:  # fmt: skip
        for line in process.stdout:
            tail = [*tail[-10:], line]
            words = line.split()
            if words[:1] == ["bench"] and words[2] == "start":
                started[words[1]] = cpu_seconds(process)
            elif words[:1] == ["bench"] and words[2] == "end":
                iterations[words[1]] += int(words[4])
                seconds[words[1]] += cpu_seconds(process) - started[words[1]]
    if process.returncode != status:
        raise bench_machines.Failed(f"{command[0]} ended with {process.returncode}: {''.join(tail)}")
    return {name: count / seconds[name] for name, count in iterations.items()}


def measure(engine, context):
    program = context.programs / "vmx_bench.elf"
    bare = rates([context.vm, "run", "--kernel", program, "--memory", "128M"], BARE_METAL_DONE)
    kvm = rates(context.command(engine, "nested", "guest_vmm=kvm_bench"), 0)
    return {
        "integer_l1": bare["integer_l1"] * 10 / 1e6,
        "integer_l2": bare["integer_l2"] * 10 / 1e6,
        "integer_ratio": bare["integer_l2"] / bare["integer_l1"],
        "miss_l1": 1e9 / bare["miss_l1"],
        "miss_l2": 1e9 / bare["miss_l2"],
        "miss_ratio": bare["miss_l2"] / bare["miss_l1"],
        "cpuid": bare["cpuid"] / 1e3,
        "violation": bare["violation"] / 1e3,
        "kvm_cpuid": kvm["kvm_cpuid"] / 1e3,
        "kvm_touch": kvm["kvm_touch"] / 1e3,
    }
