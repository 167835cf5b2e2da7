"""pytest in a process that is started once more when it does not live to its end: `python -m tests.to_the_end ...`.

Ray's native code has hung in calls that take no signal, and has crashed. Then no test is to blame, and none of the
process's results is known. A test that fails fails at once, and whatever hangs or crashes twice does, too.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

ENDED = "STUDIOLO_TESTS_ENDED"
"""Environment variable with the path of a file that pytest makes when its session ends."""


def main(arguments: list[str]) -> int:
    """The exit code of pytest, of the second process where the first did not live to its end."""
    for once_more in (True, False):
        with tempfile.TemporaryDirectory() as folder:
            ended = Path(folder) / "ended"
            code = subprocess.call([sys.executable, "-m", "pytest", *arguments], env={**os.environ, ENDED: str(ended)})
            if ended.exists() or not once_more:
                break
        print(f"pytest ended with {code}, and not by itself; once more", flush=True)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
