"""A pointer chase over 64 MiB in guest user space: nanoseconds a step."""
import re

TITLE = "memory walk over 64 MiB"
UNIT = "ns/step"


def measure(engine, context):
    command = context.command(engine, "bench", "guest_bench=memory_walk guest_scale=2")
    seconds, line = context.seconds_between(command, "bench memory_walk start", "bench memory_walk end")
    return seconds * 1e9 / int(re.search(r"iterations (\d+)", line)[1])
