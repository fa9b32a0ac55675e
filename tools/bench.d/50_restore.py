"""From the start of the process to the first instruction of a restored 512 MiB machine that had booted."""
import json
import subprocess

TITLE = "restore 512 MiB to first instruction"
UNIT = "ms"
ENGINES = ("nestor",)
TARGET = "under 50"


def measure(engine, context):
    store = context.scratch / "store"
    if not store.exists():
        booted = [*context.command(engine, "shell"), "--until", "serial:guest: shell ready", "--save", "booted",
                  "--store", store]  # fmt: skip
        context.user_seconds(booted)
    restored = subprocess.run(
        [context.vm, "restore", "booted", "--store", store, "--until", "serial:guest#", "--timing", "--json"],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=120,
    )  # fmt: skip
    told = next(line for line in (restored.stdout + restored.stderr).splitlines() if "firstInstructionMs" in line)
    return json.loads(told[told.index("{") :])["firstInstructionMs"]
