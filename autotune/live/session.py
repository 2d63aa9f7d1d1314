"""One `tune` call with those who watch it: the view in the terminal, and the webhook.

In: a study, its budget, where to tell. Out: the study's history. Invariant: what earlier calls did is known
to every watcher before the first event.
"""

from pathlib import Path

from rich.console import Console

from autotune.engine.launchers import open_launcher
from autotune.live.view import StudyView
from autotune.search.budget import Budget
from autotune.search.ledger import read_history
from autotune.search.place import place_of
from autotune.search.sampler import SamplerKind
from autotune.search.study_history import StudyHistory
from autotune.study import Study
from autotune.tuner import tune
from autotune.webhook import Webhook


def tune_watched(
    study: Study,
    budget: Budget,
    folder: Path,
    console: Console,
    *,
    sampler: SamplerKind,
    storage: str | None,
    webhook: str | None,
) -> StudyHistory:
    """Run a study, or go on with it.

    Raises:
        ConfigError: an address, of the webhook or of the storage, cannot be used.
        AutotuneError: whatever else `tuner.tune` raises.
    """
    earlier = read_history(folder).trials if place_of(folder).is_begun else ()
    learnt = [trial.record.start_phases_s for trial in earlier]
    launcher, *more = (open_launcher(slot, seed=study.seed, learnt=learnt) for slot in study.space.slots)
    view = StudyView(study, folder, budget, launcher, console)
    hook = Webhook(webhook, study, view.say)
    view.catch_up(earlier)
    hook.catch_up(earlier)
    with view.shown(), hook:
        history = tune(
            study, launcher, budget, folder,
            sampler=sampler, storage=storage, observe=hook.beside(view.observe), more_launchers=more,
        )  # fmt: skip
        hook.finish(history)
    return history
