"""The endpoint's trainer as a process on the tiny base: `python -m tests.jobs.tiny_trainer CONFIG [once] [poison ID]`.

With `poison` the identity of that id ends the process in its third step.
"""

import os
import sys
from pathlib import Path

from jobs.trainer_job import run
from studiolo.service.endpoint import EndpointSettings
from studiolo.training.learner import Learner
from tests.actors.leased import use_tiny_base


def poison(identity_id: str) -> None:
    """From here on that identity ends this process, as a fault in native code does."""
    update = Learner.update

    def update_and_die(learner: Learner, loss: float) -> None:
        update(learner, loss)
        if learner.identity_id == identity_id and len(learner.losses) == 3:
            os.abort()

    Learner.update = update_and_die  # type: ignore[method-assign]


def main(config: str, *words: str) -> None:
    """Work as the settings in `config` say."""
    use_tiny_base()
    if "poison" in words:
        poison(words[words.index("poison") + 1])
    run(EndpointSettings.load(Path(config), {}), once="once" in words)


if __name__ == "__main__":
    main(*sys.argv[1:])
