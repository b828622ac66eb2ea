"""Claim: no file under src/ includes upward, only src/compute includes torch, and no brain includes a thread or a socket.

In:   src/, or the folder named as the first argument. Out: one line a breach, exit status 1 if there is one.
The test also plants one breach of each kind in a copy of its own: a check that never turns red proves nothing.
"""

import pathlib
import re
import sys
import tempfile

# Highest first; an include may point to the folder itself or to one below it.
ORDER = ["app", "world", "fleet", "worker", "replica", "trust", "store", "data", "compute", "model", "wire", "link", "digest",
         "observe", "base"]
# src/compute builds alone on a machine that has only torch.
COMPUTE_MAY_INCLUDE = {"compute", "model", "base"}
BRAINS = {"fleet", "worker", "replica", "wire"}
TORCH = re.compile(r"^(torch|ATen|c10)/")
WORLDLY = re.compile(r"^(thread|mutex|shared_mutex|condition_variable|future|atomic|random|fstream|filesystem|unistd\.h"
                     r"|pthread\.h|sys/(socket|stat|epoll)\.h|netinet/.*|arpa/inet\.h)$")
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')


def breaches(src):
    """Yields one sentence for each include that breaks a rule."""
    for path in sorted([*src.rglob("*.h"), *src.rglob("*.cpp")]):
        where = path.relative_to(src)
        folder = where.parts[0]
        if folder not in ORDER:
            yield f"{where}: the folder {folder} has no place in the order"
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            match = INCLUDE.match(line)
            if match:
                reason = breach(folder, path, match[1] == '"', match[2])
                if reason:
                    yield f"{where}:{number}: {reason}"


def breach(folder, path, quoted, target):
    """Returns why this include is wrong, or None."""
    if TORCH.match(target):
        return None if folder == "compute" else f"{target}: only src/compute includes torch"
    if not quoted:
        is_test = path.stem.endswith(("_test", "_fuzz", "_bench"))
        if folder in BRAINS and not is_test and WORLDLY.match(target):
            return f"<{target}>: a brain has no thread, socket, disk or dice"
        return None
    below = target.split("/")[0]
    if below not in ORDER:
        return f'"{target}": includes name the full path from src/'
    if ORDER.index(below) < ORDER.index(folder):
        return f"{target}: {folder} stands below {below}"
    if folder == "compute" and below not in COMPUTE_MAY_INCLUDE:
        return f"{target}: src/compute depends on torch, model and base alone"
    return None


# One file a planted breach: path, content, and a word of the sentence it must cause.
PLANTED = [
    ("wire/frame.h", '#include "worker/books.h"', "stands below"),
    ("base/bytes.h", '#  include "digest/digest.h"', "stands below"),
    ("data/cut.cpp", "#include <torch/torch.h>", "only src/compute"),
    ("compute/block.cpp", '#include "digest/digest.h"', "torch, model and base alone"),
    ("fleet/lease.cpp", "#include <thread>", "a brain"),
    ("worker/books.cpp", '#include "books.h"', "full path"),
    ("helpers/string.h", "", "no place"),
]
INNOCENT = [
    ("app/train.cpp", '#include "world/real/endpoint.h"\n#include <thread>'),
    ("world/sim/clock.cpp", '#include "world/sim/clock.h"\n#include "base/time.h"\n#include <cstdint>'),
    ("compute/cut.cpp", '#include <torch/torch.h>\n#include "model/config.h"'),
    ("fleet/view_test.cpp", "#include <thread>"),
    ("base/text.h", '// #include "app/train.h"'),
]


def planted_breaches_are_found():
    """Yields a sentence for each planted breach that went unseen and each innocent file that did not."""
    with tempfile.TemporaryDirectory() as folder:
        src = pathlib.Path(folder)
        for name, content in [*((name, content) for name, content, _ in PLANTED), *INNOCENT]:
            (src / name).parent.mkdir(parents=True, exist_ok=True)
            (src / name).write_text(content + "\n", encoding="utf-8")
        found = list(breaches(src))
    for name, _, word in PLANTED:
        if sum(line.startswith(name) and word in line for line in found) != 1:
            yield f"the planted breach in {name} was not found exactly once"
    for name, _ in INNOCENT:
        if any(line.startswith(name) for line in found):
            yield f"{name} is innocent and was reported"


def main():
    src = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else pathlib.Path(__file__).resolve().parent.parent / "src"
    files = sum(1 for _ in [*src.rglob("*.h"), *src.rglob("*.cpp")])
    problems = [*planted_breaches_are_found(), *breaches(src)]
    if not files:
        problems.append(f"{src} holds no source file")
    for problem in problems:
        print(problem)
    print(f"{files} files, {len(problems)} breaches")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
