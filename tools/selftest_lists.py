"""The expected verdicts of the KVM selftests: tools/selftests.d/SERIES.list, read and compared.

A line is NAME VERDICT WHEN REASON, `# ` begins a comment (#GP does not). VERDICT is what the selftest is
expected to say: pass, skip, fail, or long: it has not ended within the limits. WHEN is quick (every run of
the tests), rest (with --long) or named (only by name), as what is long must be. All but a pass that is quick
or rest has a reason. After a line `[PARAMETERS]` come the rows that differ where KVM is loaded with these;
what is quick there is among them.
"""
import dataclasses
import pathlib
import re

FOLDER = pathlib.Path(__file__).resolve().parent / "selftests.d"
VERDICTS = ("pass", "skip", "fail", "long")
TIMES = ("quick", "rest", "named")


class Wrong(Exception):
    """A list that cannot be right."""


@dataclasses.dataclass(frozen=True)
class Row:
    name: str
    verdict: str
    when: str
    reason: str = ""


def parse(text, where):
    """{variant: {name: Row}}; the variant of the first rows is the empty string."""
    variants, variant = {"": {}}, ""
    for number, line in enumerate(text.splitlines(), 1):
        words = re.sub(r"(^|\s)#(\s.*)?$", "", line).strip().split(None, 3)
        at = f"{where}:{number}"
        if not words:
            continue
        if words[0].startswith("["):
            variant = words[0].strip("[]")
            if variant in variants:
                raise Wrong(f"{at}: [{variant}] is there twice")
            variants[variant] = {}
            continue
        if len(words) < 3 or words[1] not in VERDICTS or words[2] not in TIMES:
            raise Wrong(f"{at}: not NAME {'|'.join(VERDICTS)} {'|'.join(TIMES)} REASON")
        row = Row(*words)
        if not row.reason and (row.verdict != "pass" or row.when == "named"):
            raise Wrong(f"{at}: {row.name} has no reason")
        if row.verdict == "long" and row.when != "named":
            raise Wrong(f"{at}: {row.name} is long, so it is to run only when named")
        if row.name in variants[variant]:
            raise Wrong(f"{at}: {row.name} is there twice")
        if variant and row.name not in variants[""]:
            raise Wrong(f"{at}: {row.name} is not among the rows of every variant")
        variants[variant][row.name] = row
    if not variants[""]:
        raise Wrong(f"{where}: no selftest in it")
    return variants


def series():
    """Those that have a list, oldest first."""
    return sorted((file.stem for file in FOLDER.glob("*.list")), key=lambda s: [int(n) for n in s.split(".")])


def load(of):
    file = FOLDER / f"{of}.list"
    return parse(file.read_text(), f"tools/selftests.d/{file.name}")


def expected(lists, variant):
    """{name: Row} for KVM loaded with these parameters."""
    if not variant:
        return lists[""]
    rows = {row.name: dataclasses.replace(row, when="rest" if row.when == "quick" else row.when)
            for row in lists[""].values()}  # fmt: skip
    return {**rows, **lists.get(variant, {})}


def judge(row, verdict, detail=""):
    """What a verdict means beside the expected one: ("ok" | "skip" | "known" | "wrong", a line that says it)."""
    if row is None:
        return "wrong", f"{verdict}, and not in the list"
    if row.verdict == "long":
        return "known", f"listed as long: {row.reason}"
    if verdict == row.verdict:
        return {"pass": "ok", "skip": "skip", "fail": "known"}[verdict], row.reason
    if row.verdict == "fail" and verdict == "pass":
        return "wrong", f"passes, and the list says it fails ({row.reason}): change the list"
    return "wrong", f"{verdict} instead of {row.verdict}{': ' + detail if detail else ''}"
