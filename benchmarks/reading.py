"""`python -m benchmarks.reading`: what reading a webhook with its mapping costs, with jq and without.

Over the shipped examples, rule by rule. Processor time of one thread, and the best of several runs.
"""

import json
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

from relay.mapping import load_mappings
from relay.mapping.compiled import _input
from relay.mapping.document import Document, read_document

FOLDER = Path(__file__).parent.parent / "mappings"
ROUNDS = 60


def main() -> None:
    """Measure and print the table: the rules that make events, and the ignored ones of a source together."""
    times: dict[tuple[str, str], list[tuple[float, float, int]]] = defaultdict(list)
    for source, mapping in load_mappings(FOLDER, environ={}).items():
        for path in sorted((FOLDER / "examples" / source).glob("*.yaml")):
            document = read_document(path)
            if not isinstance(document, Document) or mapping.native is None:
                continue
            headers = {name.lower(): str(value) for name, value in document.data.get("headers", {}).items()}
            kept, body = mapping.kept(headers), document.data.get("body")
            text = json.dumps(body)
            native, asked = mapping.native, mapping.native.run(kept, body) is None
            result = mapping.program.run(_input(kept, text)) if isinstance(body, dict) else {}
            number = result.get("outcome", {}).get("rule")
            if number is None:
                continue
            rule = mapping.rules[number]
            with_jq = _best(lambda: mapping.program.run(_input(kept, text)))  # noqa: B023 - called at once
            without = _best(lambda: native.run(kept, body))  # noqa: B023
            row = (source, "(ignored)" if rule.ignore else rule.name)
            times[row].append((with_jq, without + with_jq if asked else without, asked))
    print("| source | rule | webhooks | asked jq | µs with jq | µs now |\n| --- | --- | ---: | ---: | ---: | ---: |")
    for (source, name), several in sorted(times.items()):
        before, after, asked = (sum(column) for column in zip(*several, strict=True))
        count = len(several)
        print(f"| {source} | {name} | {count} | {asked} | {before / count:.0f} | {after / count:.0f} |")


def _best(step: Callable[[], object]) -> float:
    """Microseconds of this thread's processor time."""
    best = 1 << 62
    for _ in range(ROUNDS):
        began = time.thread_time_ns()
        step()
        best = min(best, time.thread_time_ns() - began)
    return best / 1000


if __name__ == "__main__":
    main()
