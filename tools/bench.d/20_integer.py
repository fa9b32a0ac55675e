"""An integer loop of exactly ten instructions in guest user space: million instructions a second."""
import re

TITLE = "integer loop"
UNIT = "Minsn/s"
LOWER_IS_BETTER = False
TARGET = "at least 1000"


def measure(engine, context):
    command = context.command(engine, "bench", "guest_bench=integer guest_scale=2")
    seconds, line = context.seconds_between(command, "bench integer start", "bench integer end")
    return int(re.search(r"instructions (\d+)", line)[1]) / seconds / 1e6
