"""SHA-256 in plain C in guest user space: MiB a second (a block is 64 bytes)."""
import re

TITLE = "SHA-256 loop"
UNIT = "MiB/s"
LOWER_IS_BETTER = False


def measure(engine, context):
    command = context.command(engine, "bench", "guest_bench=sha256 guest_scale=2")
    seconds, line = context.seconds_between(command, "bench sha256 start", "bench sha256 end")
    return int(re.search(r"iterations (\d+)", line)[1]) * 64 / seconds / (1 << 20)
