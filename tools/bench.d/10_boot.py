"""Debian's kernel from its first instruction to user space and power-off: user time of the process."""
TITLE = "boot to user space and power-off"
UNIT = "s user"
TARGET = "ratio at most 5"


def measure(engine, context):
    return context.user_seconds(context.command(engine, "counter", "guest_count=1"))
