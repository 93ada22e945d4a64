"""Stands in for both programs of a benchmark with turns, without computing anything.

`python -m tests.launch.fake_peer SECONDS NAME BATCH DTYPE` is a peer whose steps take SECONDS; with
`ours` in place of the name it is our process, which says its size first. A peer whose SECONDS is
"end" ends instead.
"""

import json
import sys


def main() -> int:
    seconds, *words = sys.argv[1:]
    if seconds == "end":
        print("CUDA is not there", file=sys.stderr)
        return 3
    if words == ["ours"]:
        print(json.dumps({"batch": 98, "dtype": "bfloat16"}), flush=True)
    else:
        print(f"ready for {words}", flush=True)  # no JSON: passed over
    steps = 0
    for line in sys.stdin:
        for index in range(int(line)):
            steps += 1
            # The first step of each turn is slow, and all of the first turn.
            factor = 10 if index == 0 or steps <= int(line) else 1
            print(json.dumps({"seconds": factor * float(seconds), "peak_bytes": 5}), flush=True)
            print(steps, flush=True)  # JSON, but no object
    return 0


if __name__ == "__main__":
    sys.exit(main())
